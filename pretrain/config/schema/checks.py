"""Checks of single values: each raises a `UserError` that names the setting, its value and what to give."""

import math

from pretrain.errors import UserError


def require(condition: bool, key: str, value: object, wanted: str) -> None:
    if not condition:
        raise UserError(f"{key}={value} is not valid; give {wanted}")


def require_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    require(value in choices, key, value, "one of " + ", ".join(choices))


def require_positive(prefix: str, owner: object, *names: str) -> None:
    for name in names:
        require(0 < getattr(owner, name) < math.inf, f"{prefix}.{name}", getattr(owner, name), "a number above 0")


def require_not_negative(prefix: str, owner: object, *names: str) -> None:
    for name in names:
        require(0 <= getattr(owner, name) < math.inf, f"{prefix}.{name}", getattr(owner, name), "0 or more")


def require_fraction(prefix: str, owner: object, *names: str) -> None:
    for name in names:
        require(0 <= getattr(owner, name) < 1, f"{prefix}.{name}", getattr(owner, name), "a number in [0, 1)")
