"""`key=value` arguments -> one typed `FinetuningConfig`. There are no files to compose, and so nothing for Hydra to do."""

import dataclasses
import difflib

from pretrain.config.command_settings import settings_of
from pretrain.config.registry import SCHEMAS
from pretrain.config.schema import ScheduleConfig
from pretrain.config.schema.finetune import TASK_NAMES, FinetuneConfig, FinetuningConfig
from pretrain.errors import UserError

_CHOICES = {"task": TASK_NAMES, "optimizer": tuple(SCHEMAS["optimizer"]), "schedule": ("linear", "cosine", "constant")}
_DEFAULTS = {"optimizer": "adamw", "schedule": "linear"}
_NAMING = {"optimizer": "name", "schedule": "kind"}
"""Fields that the choice of the group sets."""

_USUAL_LR = {"adamw": 5e-5}
"""For BERT (Devlin et al., 2019, appendix A.3). Of the other optimizers no learning rate is usual here."""


def read_finetuning(arguments: list[str]) -> FinetuningConfig:
    """The configuration that `key=value` arguments ask for. Raises UserError for what is unknown or not valid."""
    chosen, settings = _sorted_out(arguments)
    if "task" not in chosen:
        raise UserError(f"no task is given; add task= one of {', '.join(TASK_NAMES)}")
    optimizer, schedule = (chosen.get(part, _DEFAULTS[part]) for part in ("optimizer", "schedule"))
    given = {"optimizer.lr": str(_USUAL_LR[optimizer])} if optimizer in _USUAL_LR else {}
    given |= {**settings, "schedule.kind": schedule}
    if "optimizer.lr" not in given:
        raise UserError(f"no learning rate is usual for fine-tuning with optimizer={optimizer}; add optimizer.lr=...")
    parts = {part: settings_of(cls, part, _of(part, given)) for part, cls in _classes(SCHEMAS["optimizer"][optimizer]).items()}
    return FinetuningConfig(chosen["task"], **parts)


def _of(part: str, settings: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items() if key.startswith(f"{part}.")]


def _classes(optimizer: type) -> dict[str, type]:
    """The parts of a configuration, where this optimizer is chosen."""
    return {"finetune": FinetuneConfig, "optimizer": optimizer, "schedule": ScheduleConfig}


def _sorted_out(arguments: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Choices of groups and settings, each as text by its key; the last one counts."""
    chosen, settings = {}, {}
    for argument in arguments:
        key, equals, value = argument.lstrip("+").partition("=")
        if not key or not equals:
            raise UserError(f"'{argument}' is not a setting; write key=value, for example task=rte")
        if key in _CHOICES:
            if value not in _CHOICES[key]:
                raise UserError(f"{key}={value} is not known; choose one of {', '.join(_CHOICES[key])}")
            chosen[key] = value
        else:
            settings[key] = value
    known = _known(SCHEMAS["optimizer"][chosen.get("optimizer", _DEFAULTS["optimizer"])])
    for key in settings:
        if key not in known:
            raise UserError(_unknown(key, known, chosen.get("optimizer", _DEFAULTS["optimizer"])))
    return chosen, settings


def _known(optimizer: type) -> list[str]:
    """Every setting, where this optimizer is chosen."""
    return [
        f"{part}.{field.name}"
        for part, cls in _classes(optimizer).items()
        for field in dataclasses.fields(cls)
        if field.name != _NAMING.get(part)
    ]


def known_settings() -> list[str]:
    """Every setting that some choice has, and the choices."""
    return [*_CHOICES, *dict.fromkeys(key for cls in SCHEMAS["optimizer"].values() for key in _known(cls))]


def _unknown(key: str, keys: list[str], optimizer: str) -> str:
    part, _, name = key.partition(".")
    if name == _NAMING.get(part):
        return f"{key} is set by its group; give {part}=..."
    if key in known_settings():
        fields = ", ".join(known.partition(".")[2] for known in keys if known.startswith("optimizer."))
        return f"'{key}' is not a setting of optimizer={optimizer}; it has {fields}"
    same_name = [known for known in keys if known.partition(".")[2] == key.rpartition(".")[2]]
    close = same_name or difflib.get_close_matches(key, [*_CHOICES, *keys], n=1, cutoff=0.6)
    return f"there is no setting '{key}'; " + (f"did you mean {' or '.join(close)}?" if close else "--help lists those there are")
