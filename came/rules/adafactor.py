"""Adafactor: adaptive learning rates with sublinear memory (Shazeer and Stern, ICML 2018, Algorithms 4 to 6).

Defaults are the paper's (section 9): eps 1e-30, 1e-3; clipping threshold 1; beta2 of step t is 1 - t^-0.8; relative step size
min(1e-2, 1/sqrt(t)); no momentum.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from came.interval import Interval
from came.lockstep import Coroutine, Sum
from came.observation import Observer
from came.optimizer import ShardedOptimizer
from came.rules import Kind, Rule, StateSpec, add_decay_, step_
from came.rules.checks import check as require
from came.rules.checks import check_common, check_decay, check_eps_pair, check_positive
from came.rules.factors import averaged_factors, clipping, scaled


def update(
    interval: Interval, param: Tensor, grad: Tensor, state: dict[str, Tensor], hyper: dict[str, Any], observer: Observer
) -> Coroutine:
    """One update of the elements of `interval`; two reductions."""
    eps1, eps2 = hyper["eps"]
    step = int(state["step"])
    weight = step ** hyper["beta2_decay"]  # 1 - beta2 of this step

    # Second moment of the gradient, factored for a matrix, and the update that it gives (Alg. 4 lines 4-8, Alg. 5 lines 4-6).
    param_squares = interval.sum(torch.square, param)
    divided: Callable[..., Tensor]
    moments: tuple[Tensor, ...] = ()
    factors: tuple[Tensor, ...] = ()
    if interval.factored:
        row_sums, col_sums, param_squares = yield Sum(*interval.row_col_sums(torch.square, grad), param_squares)
        factors = averaged_factors(interval, state["exp_avg_sq_row"], state["exp_avg_sq_col"], (row_sums, col_sums), weight, eps1)
        divided = scaled
    else:
        (param_squares,) = yield Sum(param_squares)
        interval.each(lambda g, v: v.lerp_(g.square().add_(eps1), weight), grad, state["exp_avg_sq"])
        divided, moments = (lambda g, v: g * v.rsqrt()), (state["exp_avg_sq"],)

    # Clip by the RMS over the whole parameter (Alg. 4 line 9).
    (squares,) = yield Sum(interval.sum(lambda *views: divided(*views).square_(), grad, *moments, factors=factors))
    clip = clipping(interval, squares, hyper)
    observer.clipping(interval, clip)

    # The step, relative to time and to the size of the parameter (Alg. 4 lines 3 and 10).
    lr = min(hyper["lr"], step**-0.5) if hyper["relative_step"] else hyper["lr"]
    size = (param_squares / interval.total).sqrt_().clamp_(min=eps2) if hyper["scale_parameter"] else 1.0

    def move(p: Tensor, m: Tensor, *views: Tensor) -> None:
        direction = divided(*views).div_(clip)
        if hyper["beta1"] is not None:
            direction = m.lerp_(direction, 1 - hyper["beta1"]).clone()
        direction = add_decay_(direction, p, hyper).mul_(size)
        step_(p, direction, lr, observer)

    interval.each(move, param, state.get("exp_avg", grad), grad, *moments, factors=factors)


def state(interval: Interval) -> StateSpec:
    """Row and column factors for a matrix, a full second moment for a vector."""
    if not interval.factored:
        return {"step": Kind.STEP, "exp_avg_sq": Kind.LOCAL}
    return {"step": Kind.STEP, "exp_avg_sq_row": Kind.ROW, "exp_avg_sq_col": Kind.COL}


def state_with_momentum(interval: Interval) -> StateSpec:
    """The same, and momentum for every element."""
    return {"exp_avg": Kind.LOCAL, **state(interval)}


def check(hyper: dict[str, Any]) -> None:
    check_common(hyper)
    check_eps_pair(hyper["eps"])
    check_positive(hyper, "clip_threshold")
    require("beta2_decay", hyper["beta2_decay"], hyper["beta2_decay"] <= 0, "0 or less")
    require("beta1", hyper["beta1"], hyper["beta1"] is None, "None in every group, or in none")


def check_with_momentum(hyper: dict[str, Any]) -> None:
    require("beta1", hyper["beta1"], hyper["beta1"] is not None, "None in every group, or in none")
    check_decay("beta1", hyper["beta1"])
    check({**hyper, "beta1": None})


RULE = Rule("Adafactor", update, state, check)
RULE_WITH_MOMENTUM = Rule("Adafactor with momentum", update, state_with_momentum, check_with_momentum)


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
        maximize: ascend instead.
    """

    rule = RULE

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float, float] = (1e-30, 1e-3),
        clip_threshold: float = 1.0,
        beta1: float | None = None,
        weight_decay: float = 0.0,
        *,
        scale_parameter: bool = True,
        relative_step: bool = True,
        maximize: bool = False,
    ) -> None:
        self.rule = RULE if beta1 is None else RULE_WITH_MOMENTUM
        moments = dict(beta2_decay=beta2_decay, eps=eps, clip_threshold=clip_threshold, beta1=beta1)
        step = dict(lr=lr, weight_decay=weight_decay, scale_parameter=scale_parameter, relative_step=relative_step, maximize=maximize)
        super().__init__(params, {**step, **moments})
