"""CAME: Confidence-guided Adaptive Memory Efficient optimization (Luo et al., ACL 2023, Algorithm 2).

Defaults are the paper's: betas 0.9, 0.999, 0.9999; eps 1e-30, 1e-16; clipping threshold 1. There is no bias correction: the first
update is some 11 times the learning rate in RMS, which is why the paper warms up.
"""

from typing import Any

from torch import Tensor

from came.interval import Interval
from came.lockstep import Coroutine, Sum
from came.optimizer import ShardedOptimizer
from came.rules import Kind, Rule, StateSpec, step_with_decay
from came.rules.checks import check, check_common
from came.rules.factors import averaged_factors


def update(interval: Interval, param: Tensor, grad: Tensor, state: dict[str, Tensor], hyper: dict[str, Any]) -> Coroutine:
    """One update of the elements of `interval`; three reductions for a matrix, one for a vector."""
    beta1, beta2, beta3 = hyper["betas"]
    eps1, eps2 = hyper["eps"]

    # Second moment of the gradient, factored for a matrix (lines 2-4), and the update it gives (line 5).
    if interval.factored:
        sums = yield Sum(*interval.row_col_sums(grad.square()))
        row, col = averaged_factors(interval, state["exp_avg_sq_row"], state["exp_avg_sq_col"], sums, 1 - beta2, eps1)
        scaled = interval.mul_outer_(grad, row, col)
    else:
        second_moment = state["exp_avg_sq"].lerp_(grad.square().add_(eps1), 1 - beta2)
        scaled = grad.mul_(second_moment.rsqrt())

    # Clip by the RMS over the whole parameter (line 6).
    (sum_of_squares,) = yield Sum(scaled.square().sum())
    rms = (sum_of_squares / interval.total).sqrt()
    scaled.div_((rms / hyper["clip_threshold"]).clamp_(min=1.0))

    momentum = state["exp_avg"].lerp_(scaled, 1 - beta1)  # line 7

    # Divide by the confidence: how far the update strays from its own average, factored (lines 8-11).
    if interval.factored:
        sums = yield Sum(*interval.row_col_sums(scaled.sub_(momentum).square_()))
        row, col = averaged_factors(interval, state["exp_avg_res_row"], state["exp_avg_res_col"], sums, 1 - beta3, eps2)
        direction = interval.mul_outer_(scaled.copy_(momentum), row, col)
    else:
        direction = momentum  # vectors have no confidence term

    # The step, with decoupled weight decay (line 12).
    step_with_decay(param, direction, hyper)
    return direction


def state(interval: Interval) -> StateSpec:
    """Momentum for every element; row and column factors for a matrix, a full second moment for a vector."""
    if not interval.factored:
        return {"exp_avg": Kind.LOCAL, "exp_avg_sq": Kind.LOCAL}
    return {
        "exp_avg": Kind.LOCAL,
        "exp_avg_sq_row": Kind.ROW,
        "exp_avg_sq_col": Kind.COL,
        "exp_avg_res_row": Kind.ROW,
        "exp_avg_res_col": Kind.COL,
    }


RULE = Rule("CAME", update, state)


class CAME(ShardedOptimizer):
    """CAME (Luo et al., "CAME: Confidence-guided Adaptive Memory Efficient Optimization", ACL 2023, Algorithm 2).

    Momentum for every element, row and column factors for everything else: about half of AdamW's state. An ordinary optimizer for
    any model; given to `deepspeed.initialize` it is the same algorithm under ZeRO stages 0-3.

    Args:
        params: parameters or parameter groups.
        lr: learning rate; the paper advises 0.5 to 0.9 times AdamW's.
        eps: added to the squared gradient and to the squared residual.
        clip_threshold: largest RMS of one parameter's update before momentum.
        betas: decay of the momentum, of the second moment and of the confidence.
        weight_decay: decoupled weight decay.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        came.layouts.LayoutError: at the first step, where the parameters are sharded in a way that cannot be located.
    """

    rule = RULE

    def __init__(
        self,
        params: Any,
        lr: float = 2e-4,
        eps: tuple[float, float] = (1e-30, 1e-16),
        clip_threshold: float = 1.0,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        weight_decay: float = 0.0,
    ) -> None:
        check_common(lr, betas, weight_decay)
        for index, value in enumerate(eps, start=1):
            check(f"eps{index}", value, value > 0, "above 0")
        check("clip_threshold", clip_threshold, clip_threshold > 0, "above 0")
        defaults = dict(lr=lr, eps=eps, clip_threshold=clip_threshold, betas=betas, weight_decay=weight_decay)
        super().__init__(params, defaults)
