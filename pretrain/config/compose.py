"""YAML files and command-line overrides -> one typed `Config`, by Hydra's compose API (0.2 s; writes no folders)."""

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

from pretrain.config.complaints import choices_of, explain, unknown_choice, unknown_key
from pretrain.config.consistency import check_consistency
from pretrain.config.location import configs_dir
from pretrain.config.registry import PARTS, register
from pretrain.config.schema import Config
from pretrain.errors import UserError

DEFAULT_EXPERIMENT = "demo"


def compose(overrides: list[str], config_dir: str | None = None) -> Config:
    """The configuration that `overrides` ask for; `config_dir` is a user's folder of YAML files, looked at before ours."""
    _look_first_in(config_dir)
    overrides = _with_experiment([_normalised(override) for override in overrides])
    _refuse_unknown_choices(overrides, config_dir)
    register()
    try:
        with initialize_config_dir(config_dir=str(configs_dir()), version_base="1.3"):
            composed = hydra_compose("config", overrides=overrides)
        _refuse_unknown_parts(composed)
        config = OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(explain(error, overrides, config_dir)) from error
    check_consistency(config)
    return config


def _normalised(override: str) -> str:
    """Hydra's grammar with two habits smoothed: `experiment=` needs no plus, and a setting is the same with and without one."""
    if override.startswith("~"):
        raise UserError(f"{override}: a setting cannot be removed; give it another value, such as tracker=none")
    key, equals, value = override.partition("=")
    name = key.lstrip("+")
    if not equals or not name:
        raise UserError(f"'{override}' is not a setting; write key=value, for example train.num_steps=100")
    if name.startswith(("hydra.", "hydra/")):
        raise UserError(f"{name}: Hydra's own settings have no effect here; the run folder is run.dir and run.name")
    if name == "experiment":
        return f"+{name}={value}"
    if name.startswith(("zero.extra.", "data.mixture.", "data.weights.")):  # free keys: Hydra wants them added
        return f"++{name}={value}"
    return f"{name}={value}" if "." in name else override


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
        if choices and name.isalnum() and name not in choices:
            raise UserError(unknown_choice(group, name, choices))


def _refuse_unknown_parts(composed: DictConfig) -> None:
    """Hydra lets `+name=value` add a part that nothing reads."""
    for name in set(composed) - set(PARTS):
        raise UserError(unknown_key(name))


class _UserConfigs(SearchPathPlugin):
    """Puts the folder of `--config-dir` before ours, so that a file of the same name there wins."""

    folder: Path | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.folder:
            search_path.prepend("user", f"file://{self.folder}")


def _look_first_in(config_dir: str | None) -> None:
    folder = Path(config_dir).expanduser().resolve() if config_dir else None
    if folder and not folder.is_dir():
        raise UserError(f"--config-dir {config_dir} is not a folder; give one that holds YAML files such as experiment/mine.yaml")
    _UserConfigs.folder = folder
    Plugins.instance().register(_UserConfigs)
