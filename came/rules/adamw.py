"""AdamW: Adam with decoupled weight decay (Kingma and Ba, 2015, Algorithm 1; Loshchilov and Hutter, 2019, Algorithm 2)."""

from typing import Any

from torch import Tensor

from came.interval import Interval
from came.lockstep import Coroutine
from came.observation import Observer
from came.optimizer import ShardedOptimizer
from came.rules import Kind, Rule, StateSpec, add_decay_, step_
from came.rules.checks import check_betas, check_common, check_positive


def update(
    interval: Interval, param: Tensor, grad: Tensor, state: dict[str, Tensor], hyper: dict[str, Any], observer: Observer
) -> Coroutine:
    """One update, element by element: it needs nothing from the other ranks."""
    step = int(state["step"])

    def move(p: Tensor, g: Tensor, m: Tensor, v: Tensor) -> None:
        average_moments(g, m, v, hyper)
        direction = add_decay_(adam_direction(m, v, step, hyper), p, hyper)
        step_(p, direction, hyper["lr"], observer)

    interval.each(move, param, grad, state["exp_avg"], state["exp_avg_sq"])
    return
    yield  # makes this function a coroutine, like the rules that do reduce


def average_moments(g: Tensor, m: Tensor, v: Tensor, hyper: dict[str, Any]) -> None:
    """`m = beta1 m + (1 - beta1) g` and `v = beta2 v + (1 - beta2) g^2`, in place."""
    beta1, beta2 = hyper["betas"]
    m.lerp_(g, 1 - beta1)
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)


def adam_direction(m: Tensor, v: Tensor, step: int, hyper: dict[str, Any]) -> Tensor:
    """`m / (sqrt(v) + eps)` of the bias-corrected moments after `step` updates, a new tensor."""
    beta1, beta2 = hyper["betas"]
    denominator = (v / (1 - beta2**step)).sqrt_().add_(hyper["eps"])
    return (m / (1 - beta1**step)).div_(denominator)


def state(interval: Interval) -> StateSpec:
    """Two moments of every element."""
    return {"step": Kind.STEP, "exp_avg": Kind.LOCAL, "exp_avg_sq": Kind.LOCAL}


def check(hyper: dict[str, Any]) -> None:
    check_common(hyper)
    check_betas(hyper["betas"], 2)
    check_positive(hyper, "eps")


RULE = Rule("AdamW", update, state, check)


class AdamW(ShardedOptimizer):
    """AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019), the measure of the others.

    Same mathematics as `torch.optim.AdamW`, with the same arguments and errors as `CAME`.
    """

    rule = RULE

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize))
