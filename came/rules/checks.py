"""Hyper-parameters out of their range are named, with the range."""

from math import inf
from typing import Any


def check(name: str, value: Any, valid: Any, wanted: str) -> None:
    """Raise ValueError unless `valid`; `wanted` completes "it must be ..."."""
    if not valid:
        raise ValueError(f"{name}={value} is not valid: it must be {wanted}")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    check(name, value, value in choices, f"one of {', '.join(choices)}")


def check_common(hyper: dict[str, Any]) -> None:
    """What every optimizer has."""
    for name in ("lr", "weight_decay"):
        check(name, hyper[name], 0 <= hyper[name] < inf, "a number, 0 or more")


def check_decay(name: str, value: float) -> None:
    """The decay of a moving average."""
    check(name, value, 0 <= value < 1, "in [0, 1)")


def check_betas(betas: tuple[float, ...], count: int) -> None:
    check("betas", betas, len(betas) == count, f"{count} numbers")
    for index, beta in enumerate(betas, start=1):
        check_decay(f"beta{index}", beta)


def check_positive(hyper: dict[str, Any], *names: str) -> None:
    for name in names:
        check(name, hyper[name], 0 < hyper[name] < inf, "a number above 0")


def check_eps_pair(eps: tuple[float, float]) -> None:
    check("eps", eps, len(eps) == 2, "2 numbers")
    check_positive({f"eps{index}": value for index, value in enumerate(eps, start=1)}, "eps1", "eps2")
