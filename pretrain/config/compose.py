"""YAML files and command-line overrides -> one typed `Config`, by Hydra's compose API (0.2 s; writes no folders)."""

import dataclasses
from pathlib import Path

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pretrain.config.complaints import as_given, choices_of, explain, unknown_choice, unknown_key
from pretrain.config.consistency import check_consistency
from pretrain.config.location import configs_dir
from pretrain.config.registry import PARTS, register
from pretrain.config.schema import Config
from pretrain.config.user_files import faulty_file, user_folder
from pretrain.errors import UserError

DEFAULT_EXPERIMENT = "demo"


def compose(overrides: list[str], config_dir: str | None = None) -> Config:
    """The configuration that `overrides` ask for; `config_dir` is a user's folder of YAML files, looked at before ours."""
    folder = user_folder(config_dir)
    _look_first_in(folder)
    overrides = _with_experiment([normalised(override) for override in overrides])
    _refuse_unknown_choices(overrides, config_dir)
    register()
    try:
        composed = _compose(overrides, folder)
        _refuse_unknown_keys(composed, overrides)
        config = OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, overrides, config_dir)) from error
    check_consistency(config)
    return config


def _compose(overrides: list[str], folder: Path | None) -> DictConfig:
    try:
        with initialize_config_dir(config_dir=str(configs_dir()), version_base="1.3"):
            return hydra_compose("config", overrides=overrides)
    except (ValueError, TypeError, AttributeError, OSError, RecursionError, yaml.YAMLError) as error:
        fault = faulty_file(error, folder) if folder else None
        if fault is None:
            raise
        raise UserError(fault) from error


def normalised(override: str) -> str:
    """Hydra's grammar with two habits smoothed: `experiment=` needs no plus, and a setting is the same with and without one."""
    if override.startswith("~"):
        raise UserError(f"{override}: a setting cannot be removed; give it another value, such as tracker=none")
    key, equals, value = override.partition("=")
    name = key.lstrip("+")
    if not equals or not name or any(character in "@:" or character.isspace() for character in name):
        raise UserError(f"'{override}' is not a setting; write key=value, for example train.num_steps=100")
    if names_launcher(override):
        raise UserError(f"{override}: a launcher starts many runs; give -m too, or leave it out")
    if name.startswith(("hydra.", "hydra/")):
        raise UserError(f"{name}: Hydra's own settings have no effect here; the run folder is run.dir and run.name")
    if name == "experiment":
        return f"+{name}={value}"
    if name.startswith(("zero.extra.", "data.mixture.", "data.weights.")):  # free keys: Hydra wants them added
        return f"++{name}={value}"
    if name.count(".") > 1:  # Hydra would look inside a list
        raise UserError(unknown_key(name))
    return f"{name}={value}" if "." in name else override


def names_launcher(override: str) -> bool:
    """Whether it chooses how the runs of a sweep are started, or sets something of that: hydra/launcher=NAME, hydra.launcher.KEY=VALUE."""
    return override.lstrip("+").startswith(("hydra/launcher=", "hydra.launcher."))


def _with_experiment(overrides: list[str]) -> list[str]:
    named = [override for override in overrides if override.startswith("+experiment=")]
    if len(named) > 1:
        raise UserError(f"{' '.join(named)}: only one experiment can be run; give one")
    return overrides if named else [f"+experiment={DEFAULT_EXPERIMENT}", *overrides]


def _refuse_unknown_choices(overrides: list[str], config_dir: str | None) -> None:
    """Hydra would say it less well, and of a number (`zero=3`) with a traceback."""
    for override in overrides:
        group, _, name = override.lstrip("+").partition("=")
        choices = choices_of(group, config_dir)
        if choices and name.strip("'\"") not in choices:
            raise UserError(unknown_choice(group, name, choices))


def _refuse_unknown_keys(composed: DictConfig, overrides: list[str]) -> None:
    """Hydra lets `+name=value` add a part that nothing reads, and `++part.name.x=value` a setting."""
    for part in composed:
        if part not in PARTS:
            raise UserError(unknown_key(as_given(part, overrides)))
        cls = OmegaConf.get_type(composed, part)
        for key in composed[part] if dataclasses.is_dataclass(cls) else ():
            if key not in cls.__dataclass_fields__:
                raise UserError(unknown_key(as_given(f"{part}.{key}", overrides)))


class _UserConfigs(SearchPathPlugin):
    """Puts the folder of `--config-dir` before ours, so that a file of the same name there wins."""

    folder: Path | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.folder:
            search_path.prepend("user", f"file://{self.folder}")


def _look_first_in(folder: Path | None) -> None:
    _UserConfigs.folder = folder
    Plugins.instance().register(_UserConfigs)
