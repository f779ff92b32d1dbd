"""SM3: square-root of minima of sums of maxima of squared gradients (Anil et al., NeurIPS 2019, Algorithm SM3-II).

Momentum 0.9 as in the paper's experiments, averaged as in the authors' implementation. The covers are the rows and the columns of each
matrix. A parameter of more than two dimensions is a stack of matrices, as for CAME and Adafactor, with covers of their own; the authors'
implementation instead covers such a tensor by the slices along each of its axes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from came.interval import Interval
from came.lockstep import Coroutine, Max
from came.observation import Observer
from came.optimizer import ShardedOptimizer
from came.rules import Kind, Rule, StateSpec, add_decay_, step_
from came.rules.checks import check as require
from came.rules.checks import check_common, check_decay


def update(
    interval: Interval, param: Tensor, grad: Tensor, state: dict[str, Tensor], hyper: dict[str, Any], observer: Observer
) -> Coroutine:
    """One update of the elements of `interval`; one reduction for a matrix, none for a vector, whose covers are its elements."""
    nu_of: Callable[..., Tensor]
    covers: tuple[Tensor, ...]
    factors: tuple[Tensor, ...] = ()
    # nu(i) = min over the covers that hold i of mu, plus g(i)^2; mu of a cover = max of nu over it (SM3-II lines 5-9).
    if interval.factored:
        before = state["accumulator_row"].clone(), state["accumulator_col"].clone()
        row_max, col_max = yield Max(*interval.row_col_max(_minimum_plus_square, grad, factors=before))
        state["accumulator_row"].copy_(row_max)
        state["accumulator_col"].copy_(col_max)
        nu_of, covers, factors = _minimum_plus_square, (), before
    else:
        nu_of, covers = _plus_square_, (state["accumulator"],)

    def move(p: Tensor, m: Tensor, g: Tensor, *beside: Tensor) -> None:
        direction = g / nu_of(g, *beside).clamp(min=torch.finfo(g.dtype).tiny).sqrt_()  # 0/0 is 0 (line 6)
        if hyper["momentum"]:
            direction = m.lerp_(direction, 1 - hyper["momentum"]).clone()
        add_decay_(direction, p, hyper)
        step_(p, direction, hyper["lr"], observer)

    interval.each(move, param, state.get("exp_avg", grad), grad, *covers, factors=factors)


def _minimum_plus_square(g: Tensor, row: Tensor, col: Tensor) -> Tensor:
    return torch.minimum(row, col).addcmul_(g, g)


def _plus_square_(g: Tensor, accumulator: Tensor) -> Tensor:
    return accumulator.addcmul_(g, g)


def state(interval: Interval) -> StateSpec:
    """One accumulator for every row and column of a matrix, for every element of a vector."""
    if not interval.factored:
        return {"accumulator": Kind.LOCAL}
    return {"accumulator_row": Kind.ROW, "accumulator_col": Kind.COL}


def state_with_momentum(interval: Interval) -> StateSpec:
    """The same, and momentum for every element."""
    return {"exp_avg": Kind.LOCAL, **state(interval)}


def check(hyper: dict[str, Any]) -> None:
    check_common(hyper)
    require("momentum", hyper["momentum"], hyper["momentum"] == 0, "0 in every group, or in none")


def check_with_momentum(hyper: dict[str, Any]) -> None:
    check_decay("momentum", hyper["momentum"])
    require("momentum", hyper["momentum"], hyper["momentum"] > 0, "0 in every group, or in none")
    check_common(hyper)


RULE = Rule("SM3 without momentum", update, state, check)
RULE_WITH_MOMENTUM = Rule("SM3", update, state_with_momentum, check_with_momentum)


class SM3(ShardedOptimizer):
    """SM3-II (Anil, Gupta, Koren and Singer, "Memory-Efficient Adaptive Optimization", NeurIPS 2019).

    Adagrad with one accumulator for every row and column instead of every element. It has no decay: the learning rate falls by itself, and
    is larger than Adam's.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        momentum: decay of the averaged update; 0 for none and no state for it.
        weight_decay: decoupled weight decay.
        maximize: ascend instead.
    """

    rule = RULE_WITH_MOMENTUM

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        self.rule = RULE_WITH_MOMENTUM if momentum else RULE
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, maximize=maximize))
