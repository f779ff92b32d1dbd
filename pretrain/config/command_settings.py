"""Typed settings of a command beside training, `compare.seeds=3` for example: its own `prefix.key=value` arguments -> one dataclass."""

import typing
from collections.abc import Iterable
from dataclasses import fields
from typing import TypeVar

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
    config = OmegaConf.structured(cls)
    known = ", ".join(field.name for field in fields(cls))
    for override in overrides:
        name, equals, _ = override.lstrip("+").removeprefix(f"{prefix}.").partition("=")
        if not equals or not name:
            raise UserError(f"'{override}' is not a setting; write {prefix}.key=value")
        if name.partition(".")[0] not in cls.__dataclass_fields__:
            raise UserError(f"there is no setting '{prefix}.{name}'; {prefix} has {known}")
        try:
            value = OmegaConf.from_dotlist([f"value={override.partition('=')[2]}"])["value"]
            field, _, inner = name.partition(".")
            config = OmegaConf.merge(config, {field: {inner: value} if inner else value})
        except ValidationError as error:
            raise UserError(f"{override} has the wrong type; give {_wanted(cls, name)}") from error
        except (OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError) as error:
            raise UserError(f"{override} cannot be read ({_first_line(error)}); {prefix} has {known}") from error
    try:
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise UserError(f"{prefix}: {_first_line(error)}; {prefix} has {known}") from error


def _wanted(cls: type, name: str) -> str:
    from pretrain.config.complaints import type_words

    return type_words(typing.get_type_hints(cls)[name.partition(".")[0]])


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
