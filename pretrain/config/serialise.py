"""A config as YAML text and back: `--cfg job` and the run folder's `config.yaml`."""

import dataclasses
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pretrain.config.consistency import check_consistency
from pretrain.config.registry import PARTS, dataclass_of
from pretrain.config.schema import Config
from pretrain.errors import UserError
from pretrain.user_path import user_path


def to_yaml(config: Config) -> str:
    """The whole configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))


def value_of(config: Config, key: str) -> object:
    """One setting's value by its key, `run.name` for example."""
    value: object = dataclasses.asdict(config)
    for name in key.split("."):
        if not isinstance(value, dict) or name not in value:
            raise UserError(f"--package {key} is not a setting; --cfg job prints those that are")
        value = value[name]
    return value


def from_yaml(text: str) -> Config:
    """The typed configuration that `to_yaml` wrote."""
    try:
        return _from_values(OmegaConf.to_container(OmegaConf.create(text)))
    except _NOT_OURS as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"the stored config.yaml is not one that this version can read ({reason}); start a new run.name") from error


def from_file(path: str) -> Config:
    """The typed configuration in a file that `to_yaml` made, by way of `--cfg job`; whole, checked as a composed one is."""
    try:
        config = _from_values(OmegaConf.to_container(OmegaConf.create(user_path(path, "--config ").read_text(encoding="utf-8"))))
    except OSError as error:
        raise UserError(f"--config {path} cannot be read ({error.strerror}); give a file that --cfg job printed") from error
    except _NOT_OURS as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"--config {path} is not a whole configuration ({reason}); give a file that --cfg job printed") from error
    check_consistency(config)
    return config


def from_manifest(values: dict, checkpoint: Path) -> Config:
    """The typed configuration that the manifest of a checkpoint holds as plain values."""
    try:
        return _from_values(values)
    except _NOT_OURS as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"the configuration in {checkpoint} is not one that this version can read ({reason}); give another one") from error


_NOT_OURS = (OmegaConfBaseException, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError)


def _from_values(values: dict) -> Config:
    return Config(**{part: _typed(dataclass_of(part, values[part]), values[part]) for part in PARTS})


def _typed(cls: type, values: dict) -> object:
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), values))
