"""Adafactor: adaptive learning rates with sublinear memory (Shazeer and Stern, ICML 2018, Algorithms 4 to 6).

Defaults are the paper's (section 9): eps 1e-30, 1e-3; clipping threshold 1; beta2 of step t is 1 - t^-0.8; relative step size
min(1e-2, 1/sqrt(t)); no momentum.
"""

from typing import Any

from torch import Tensor

from came.interval import Interval
from came.lockstep import Coroutine, Sum
from came.optimizer import ShardedOptimizer
from came.rules import Kind, Rule, StateSpec
from came.rules.checks import check, check_common
from came.rules.factors import averaged_factors


def update(interval: Interval, param: Tensor, grad: Tensor, state: dict[str, Tensor], hyper: dict[str, Any]) -> Coroutine:
    """One update of the elements of `interval`; two reductions."""
    eps1, eps2 = hyper["eps"]
    step = int(state["step"])
    weight = step ** hyper["beta2_decay"]  # 1 - beta2 of this step

    # Second moment of the gradient, factored for a matrix, and the update it gives (Alg. 4 lines 4-8, Alg. 5 lines 4-6).
    squares = param.square().sum()
    if interval.factored:
        *sums, squares = yield Sum(*interval.row_col_sums(grad.square()), squares)
        row, col = averaged_factors(interval, state["exp_avg_sq_row"], state["exp_avg_sq_col"], sums, weight, eps1)
        scaled = interval.mul_outer_(grad, row, col)
    else:
        (squares,) = yield Sum(squares)
        second_moment = state["exp_avg_sq"].lerp_(grad.square().add_(eps1), weight)
        scaled = grad.mul_(second_moment.rsqrt())

    # Clip by the RMS over the whole parameter (Alg. 4 line 9).
    (sum_of_squares,) = yield Sum(scaled.square().sum())
    rms = (sum_of_squares / interval.total).sqrt()
    scaled.div_((rms / hyper["clip_threshold"]).clamp_(min=1.0))

    direction = scaled if hyper["beta1"] is None else state["exp_avg"].lerp_(scaled, 1 - hyper["beta1"])
    if hyper["weight_decay"]:
        direction = direction.add(param, alpha=hyper["weight_decay"])

    # The step: relative to time and to the size of the parameter (Alg. 4 lines 3 and 10).
    if hyper["scale_parameter"]:
        direction = direction * (squares / interval.total).sqrt_().clamp_(min=eps2)
    lr = min(hyper["lr"], step**-0.5) if hyper["relative_step"] else hyper["lr"]
    param.add_(direction, alpha=-lr)
    return direction


def state(interval: Interval) -> StateSpec:
    """Row and column factors for a matrix, a full second moment for a vector."""
    if not interval.factored:
        return {"step": Kind.STEP, "exp_avg_sq": Kind.LOCAL}
    return {"step": Kind.STEP, "exp_avg_sq_row": Kind.ROW, "exp_avg_sq_col": Kind.COL}


def state_with_momentum(interval: Interval) -> StateSpec:
    """The same, and momentum for every element."""
    return {"exp_avg": Kind.LOCAL, **state(interval)}


RULE = Rule("Adafactor", update, state)
RULE_WITH_MOMENTUM = Rule("Adafactor with momentum", update, state_with_momentum)


class Adafactor(ShardedOptimizer):
    """Adafactor (Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018).

    By default the form that T5 was trained with: `alpha_t = max(eps2, RMS(p)) * min(lr, 1/sqrt(t))`, as in `torch.optim.Adafactor`. With
    `scale_parameter=False, relative_step=False` the learning rate is `lr` itself, and schedules are its owner's.

    Args:
        params: parameters or parameter groups.
        lr: largest relative step size or, with `relative_step=False`, the learning rate.
        beta2_decay: exponent of the second moment's decay, beta2 = 1 - t^beta2_decay.
        eps: added to the squared gradient; least RMS that the parameter is taken to have.
        clip_threshold: largest RMS of one parameter's update before momentum.
        beta1: decay of the momentum, which averages updates before the learning rate; None for no momentum and no state for it.
        weight_decay: decoupled; scaled like the update.
        scale_parameter: multiply the step by the RMS of the parameter.
        relative_step: let the step fall with 1/sqrt(t).
    """

    rule = RULE

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float, float] = (1e-30, 1e-3),
        clip_threshold: float = 1.0,
        beta1: float | None = None,
        weight_decay: float = 0.0,
        scale_parameter: bool = True,
        relative_step: bool = True,
    ) -> None:
        check_common(lr, () if beta1 is None else (beta1,), weight_decay)
        check("beta2_decay", beta2_decay, beta2_decay <= 0, "0 or less")
        for index, value in enumerate(eps, start=1):
            check(f"eps{index}", value, value > 0, "above 0")
        check("clip_threshold", clip_threshold, clip_threshold > 0, "above 0")
        self.rule = RULE if beta1 is None else RULE_WITH_MOMENTUM
        defaults = dict(lr=lr, beta2_decay=beta2_decay, eps=eps, clip_threshold=clip_threshold, beta1=beta1, weight_decay=weight_decay)
        super().__init__(params, defaults | dict(scale_parameter=scale_parameter, relative_step=relative_step))
