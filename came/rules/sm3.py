"""SM3: square-root of minima of sums of maxima of squared gradients (Anil et al., NeurIPS 2019, Algorithm SM3-II).

Momentum 0.9 as in the paper's experiments, averaged as in the authors' implementation. The covers are the rows and the columns of each
matrix. A parameter of more than two dimensions is a stack of matrices, as for CAME and Adafactor, with covers of their own; the authors'
implementation instead covers such a tensor by the slices along each of its axes.
"""

from typing import Any

import torch
from torch import Tensor

from came.interval import Interval
from came.lockstep import Coroutine, Max
from came.optimizer import ShardedOptimizer
from came.rules import Kind, Rule, StateSpec, step_with_decay
from came.rules.checks import check, check_common


def update(interval: Interval, param: Tensor, grad: Tensor, state: dict[str, Tensor], hyper: dict[str, Any]) -> Coroutine:
    """One update of the elements of `interval`; one reduction for a matrix, none for a vector, whose covers are its elements."""
    if interval.factored:
        # nu(i) = min over the covers that hold i of mu, plus g(i)^2; mu of a cover = max of nu over it (SM3-II lines 5-9).
        row, col = state["accumulator_row"], state["accumulator_col"]
        nu = interval.min_outer(row, col).addcmul_(grad, grad)
        row_max, col_max = yield Max(*interval.row_col_max(nu))
        row.copy_(row_max)
        col.copy_(col_max)
    else:
        nu = state["accumulator"].addcmul_(grad, grad)

    scaled = grad.div_(nu.clamp(min=torch.finfo(nu.dtype).tiny).sqrt_())  # 0/0 is 0 (line 6)
    direction = state["exp_avg"].lerp_(scaled, 1 - hyper["momentum"]) if hyper["momentum"] else scaled
    step_with_decay(param, direction, hyper)
    return direction


def state(interval: Interval) -> StateSpec:
    """One accumulator for every row and column of a matrix, for every element of a vector."""
    if not interval.factored:
        return {"accumulator": Kind.LOCAL}
    return {"accumulator_row": Kind.ROW, "accumulator_col": Kind.COL}


def state_with_momentum(interval: Interval) -> StateSpec:
    """The same, and momentum for every element."""
    return {"exp_avg": Kind.LOCAL, **state(interval)}


RULE = Rule("SM3 without momentum", update, state)
RULE_WITH_MOMENTUM = Rule("SM3", update, state_with_momentum)


class SM3(ShardedOptimizer):
    """SM3-II (Anil, Gupta, Koren and Singer, "Memory-Efficient Adaptive Optimization", NeurIPS 2019).

    Adagrad with one accumulator for every row and column instead of every element. It has no decay: the learning rate falls by itself, and
    is larger than Adam's.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        momentum: decay of the averaged update; 0 for none and no state for it.
        weight_decay: decoupled weight decay.
    """

    rule = RULE_WITH_MOMENTUM

    def __init__(self, params: Any, lr: float = 0.1, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        check_common(lr, (), weight_decay)
        check("momentum", momentum, 0 <= momentum < 1, "in [0, 1)")
        self.rule = RULE_WITH_MOMENTUM if momentum else RULE
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))
