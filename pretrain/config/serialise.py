"""A config as YAML text and back: `--cfg job` and the run folder's `config.yaml`."""

import dataclasses

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pretrain.config.registry import PARTS, dataclass_of
from pretrain.config.schema import Config
from pretrain.errors import UserError


def to_yaml(config: Config) -> str:
    """The whole configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))


def from_yaml(text: str) -> Config:
    """The typed configuration that `to_yaml` wrote."""
    try:
        values = OmegaConf.to_container(OmegaConf.create(text))
        return Config(**{part: _typed(dataclass_of(part, values[part]), values[part]) for part in PARTS})
    except (OmegaConfBaseException, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"the stored config.yaml is not one that this version can read ({reason}); start a new run.name") from error


def _typed(cls: type, values: dict) -> object:
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), values))
