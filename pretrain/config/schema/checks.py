"""Checks of single values: each raises a `UserError` that names the setting, its value and what to give."""

import math

from pretrain.errors import UserError

LARGEST = 2**31 - 1
"""Whole numbers beyond it are slips, and would overflow somewhere later."""


def require(condition: bool, key: str, value: object, wanted: str) -> None:
    if not condition:
        raise UserError(f"{key}={value} is not valid; give {wanted}")


def require_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    require(value in choices, key, value, "one of " + ", ".join(choices))


def require_number(key: str, value: float, within: bool, wanted: str) -> None:
    """`value` is `within` its bounds, finite, and no larger than a whole number may be."""
    require(not isinstance(value, int) or value <= LARGEST, key, value, f"{LARGEST} or less")
    require(within and value < math.inf, key, value, wanted)


def require_positive(prefix: str, owner: object, *names: str) -> None:
    """Or None, where the setting may be left out."""
    for name in names:
        value = getattr(owner, name)
        if value is not None:
            require_number(f"{prefix}.{name}", value, value > 0, "a number above 0")


def require_not_negative(prefix: str, owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        require_number(f"{prefix}.{name}", value, value >= 0, "0 or more")


def require_fraction(prefix: str, owner: object, *names: str) -> None:
    for name in names:
        require(0 <= getattr(owner, name) < 1, f"{prefix}.{name}", getattr(owner, name), "a number in [0, 1)")
