"""Typed settings of a command beside training, `compare.seeds=3` for example: its own `prefix.key=value` arguments -> one dataclass."""

import typing
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from pretrain.errors import UserError

T = TypeVar("T")


def parted(overrides: Iterable[str], prefix: str) -> tuple[list[str], list[str]]:
    """(those that set something of `prefix`.*, the others)."""
    own, others = [], []
    for override in overrides:
        (own if override.lstrip("+").startswith(f"{prefix}.") else others).append(override)
    return own, others


def settings_of(cls: type[T], prefix: str, overrides: Iterable[str]) -> T:
    """`cls`, a dataclass whose checks are its own, with the values that `overrides` (`prefix.key=value`) give. Raises UserError."""
    config, hints = OmegaConf.structured(cls), typing.get_type_hints(cls)
    known = ", ".join(field.name for field in fields(cls))
    for override in overrides:
        name, equals, _ = override.lstrip("+").removeprefix(f"{prefix}.").partition("=")
        if not equals or not name:
            raise UserError(f"'{override}' is not a setting; write {prefix}.key=value")
        if name.partition(".")[0] not in cls.__dataclass_fields__:
            raise UserError(f"there is no setting '{prefix}.{name}'; {prefix} has {known}")
        try:
            value = _value(override.partition("=")[2], hints[name.partition(".")[0]])
            field, _, inner = name.partition(".")
            config = OmegaConf.merge(config, {field: {inner: value} if inner else value})
        except ValidationError as error:
            from pretrain.config.complaints import type_words

            raise UserError(f"{override} has the wrong type; give {type_words(hints[name.partition('.')[0]])}") from error
        except (OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError) as error:
            raise UserError(f"{override} cannot be read ({_first_line(error)}); {prefix} has {known}") from error
    try:
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise UserError(f"{prefix}: {_first_line(error)}; {prefix} has {known}") from error


def _value(text: str, wanted: Any) -> Any:
    """What is text stays as it is written: a folder may be called 1_000 or `a: b`. Anything else is read as YAML."""
    if wanted is str or str in typing.get_args(wanted) and typing.get_origin(wanted) not in (list, dict):
        return None if text in ("", "null") else text
    return OmegaConf.from_dotlist([f"value={text}"])["value"]


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
