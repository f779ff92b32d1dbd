"""What Hydra or OmegaConf objects to, said in one line with the mend."""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterator

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    KeyValidationError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from pretrain.config.location import group_choices
from pretrain.config.registry import PARTS, SCHEMAS, known_keys
from pretrain.config.schema import Config
from pretrain.config.user_files import faulty_file, user_folder

_SWEEP = re.compile(r"(Ambiguous value for argument|Sweep parameters) '(?P<override>.*)'")

_FREE_KEYS = ("data.mixture", "data.weights", "zero.extra")

_ELEMENT = re.compile(r"\[\d+\]$")
"""What names one element of a list, behind the list's own key."""

_UNCONVERTED = re.compile(r"could not be converted to (\w+)")

_IN_FILE = re.compile(r"In '(?P<file>[^']*)': ")


def explain(error: Exception, overrides: list[str], config_dir: str | None) -> str:
    """One line for `error`, raised while `overrides` were composed."""
    for cause in _chain(error):
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            return _missing_file(cause.missing_cfg_file, config_dir)
        if isinstance(cause, OverrideParseException):
            return f"'{cause.override}' cannot be read: {_first_line(cause)}; quote values with special characters: 'key=\"value\"'"
        if isinstance(cause, MissingMandatoryValue):
            return _missing(cause.full_key)
        if isinstance(cause, (ConfigKeyError, ConfigAttributeError)):
            return _file_of(error) + unknown_key(as_given(cause.full_key or str(cause.key), overrides))
        if isinstance(cause, KeyValidationError) and (folder := user_folder(config_dir)) and (fault := faulty_file(cause, folder)):
            return fault
        if isinstance(cause, ValidationError):
            return _wrong_value(cause, overrides, _file_of(error))
        if isinstance(cause, InterpolationResolutionError):
            return f"{cause.full_key}: {_first_line(cause)}; give a plain value"
        if swept := _SWEEP.match(str(cause)):
            return f"{swept['override']} gives several values; give one, or a list as key=[first,second]"
    return _other(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _missing(key: str) -> str:
    if key in PARTS:
        return f"nothing sets {key}.*; choose an experiment that does, such as +experiment=demo"
    return f"{key} is not given; add {key}=... or choose an experiment that sets it"


def choices_of(group: str, config_dir: str | None) -> list[str]:
    """The choices of a group, the user's folder included; none if there is no such group."""
    return group_choices(*([config_dir] if config_dir else [])).get(group, [])


def unknown_choice(group: str, name: str, choices: list[str]) -> str:
    """The complaint about a choice that a group does not have."""
    return f"{group}={name} is not known; choose one of {', '.join(choices)}"


def _missing_file(missing: str, config_dir: str | None) -> str:
    group, _, name = missing.rpartition("/")
    choices = choices_of(group, config_dir)
    return unknown_choice(group, name, choices) if choices else f"there is no configuration file '{missing}'; --help lists those there are"


def as_given(key: str, overrides: list[str]) -> str:
    """The whole of what the user wrote, where Hydra stops at the first part that it does not know."""
    given = (override.lstrip("+").partition("=")[0] for override in overrides)
    return next((name for name in given if name.startswith(f"{key}.")), key)


def unknown_key(key: str) -> str:
    """The complaint about a key that the composed config does not have."""
    if key in known_keys() or ".".join(key.split(".")[:2]) in _FREE_KEYS:
        return f"'{key}' is not a setting of the chosen {key.partition('.')[0]}; --cfg job prints those that are"
    close = _close_keys(key)
    mend = f"did you mean {close}?" if close else "--cfg job prints all keys"
    return f"there is no setting '{key}'; {mend}"


def _close_keys(key: str) -> str:
    keys = list(known_keys())
    same_name = [known for known in keys if known.rpartition(".")[2] == key.rpartition(".")[2]]
    return " or ".join(same_name[:3] or difflib.get_close_matches(key, [*keys, *PARTS], n=1, cutoff=0.7))


def _wrong_value(error: OmegaConfBaseException, overrides: list[str], file: str) -> str:
    key = _ELEMENT.sub("", str(error.full_key or error.key or _part_of(error)))
    given = [override for override in overrides if override.lstrip("+").startswith(f"{key}=")]
    said = given[-1].lstrip("+") if given else f"{file}{key} ({_first_line(error)})"
    if key in PARTS:
        return f"{said} replaces a whole part; give its settings one by one: {key}.NAME=VALUE"
    wanted = known_keys().get(key) or _wanted_by_omegaconf(error)
    return f"{said} has the wrong type; give {type_words(wanted)}" if wanted else f"{said} is not valid: {_first_line(error)}"


def _wanted_by_omegaconf(error: OmegaConfBaseException) -> type | None:
    """The plain type of a setting that is not ours, such as one of a launcher; None where the error does not say."""
    found = _UNCONVERTED.search(str(error))
    return {"Integer": int, "Float": float, "Boolean": bool}.get(found[1]) if found else None


def _part_of(error: OmegaConfBaseException) -> str:
    """The part that something of another type was put in place of: OmegaConf names its dataclass alone."""
    classes = {part.type.__name__: part.name for part in dataclasses.fields(Config)}
    classes |= {cls.__name__: part for part, choices in SCHEMAS.items() for cls in choices.values()}
    return next((part for name, part in classes.items() if name in str(error)), "a value")


def type_words(wanted: object) -> str:
    if isinstance(wanted, types.UnionType):
        return " or ".join(type_words(part) for part in typing.get_args(wanted))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}
    if typing.get_origin(wanted) is list:
        return f"a list, each element {type_words(typing.get_args(wanted)[0])}: [first,second]"
    if typing.get_origin(wanted) is dict:
        return "a mapping: {key: value}"
    return words[wanted]


def _file_of(error: Exception) -> str:
    """`experiment/mine.yaml: ` where Hydra says that the mistake is in a file, else nothing."""
    named = _IN_FILE.match(str(error))
    return f"{named['file']}.yaml: " if named else ""


def _other(error: Exception) -> str:
    lines = [_first_line(cause) for cause in _chain(error)]
    return ": ".join(dict.fromkeys(line for line in lines if line)) or type(error).__name__


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
