"""What an optimizer is, apart from where its tensors live: a rule, the state it keeps, its paper.

A rule sees one parameter's interval and reads like the paper; see `came/rules/came.py` for one that reduces and
`came/rules/adamw.py` for one that does not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any

from torch import Tensor

from came.interval import Interval
from came.lockstep import Coroutine
from came.momentum import pieces
from came.observation import Observer


class Kind(Enum):
    """What a state tensor of a rule holds for one parameter."""

    LOCAL = "one value per element that the rank holds"
    ROW = "one value per row of the whole parameter, the same on every rank that holds some of it"
    COL = "one value per column of the whole parameter, likewise"
    STEP = "the number of this update, from 1; the optimizer counts it"
    PIECE = "one value per piece of a block of elements that the rank holds; no rule sees it: see came.momentum"


StateSpec = dict[str, Kind]


@dataclass(frozen=True)
class Rule:
    """One optimizer's mathematics.

    `update(interval, param, grad, state, hyper, observer)` changes `param` and `state` in place and leaves `grad` as it is, all of them
    (numel,) and float32 (float64 where the parameters are); it shows `observer` every part of the direction it moves along and, where
    it has them, how the update was clipped and CAME's confidence. `state(interval)` names what it keeps. `hyper` is the parameter group,
    whose values `check(hyper)` has found to be in their ranges.
    """

    name: str
    update: Callable[[Interval, Tensor, Tensor, dict[str, Tensor], dict[str, Any], Observer], Coroutine]
    state: Callable[[Interval], StateSpec]
    check: Callable[[dict[str, Any]], None]
    momentum_dtype: str = "float32"
    """How `exp_avg` is kept between steps, see `came.momentum`; to the rule it is always what the other state is."""


def state_shape(kind: Kind, interval: Interval) -> tuple[int, ...]:
    """Shape of one state tensor, as the rule sees it."""
    match kind:
        case Kind.LOCAL:
            return (interval.numel,)
        case Kind.ROW:
            return interval.row_shape
        case Kind.COL:
            return interval.col_shape
        case Kind.PIECE:
            return (pieces(interval),)
        case Kind.STEP:
            return ()


def state_numel(kind: Kind, interval: Interval) -> int:
    return prod(state_shape(kind, interval))


def step_(param: Tensor, direction: Tensor, lr: float, observer: Observer) -> None:
    """`param -= lr * direction`, in place."""
    param.add_(direction, alpha=-lr)
    observer.direction(direction)


def add_decay_(direction: Tensor, param: Tensor, hyper: dict[str, Any]) -> Tensor:
    """`direction + weight_decay * param`, in place of the direction: decoupled weight decay is one more thing that the learning rate
    multiplies.

    Not as `param *= 1 - lr * weight_decay`: in float32 that factor is off by up to 3e-8 each step, always to the same side.
    """
    return direction.add_(param, alpha=hyper["weight_decay"]) if hyper["weight_decay"] else direction
