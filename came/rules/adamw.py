"""AdamW: Adam with decoupled weight decay (Kingma and Ba, 2015, Algorithm 1; Loshchilov and Hutter, 2019, Algorithm 2)."""

from typing import Any

from torch import Tensor

from came.interval import Interval
from came.lockstep import Coroutine
from came.optimizer import ShardedOptimizer
from came.rules import Kind, Rule, StateSpec, step_with_decay
from came.rules.checks import check, check_common


def update(interval: Interval, param: Tensor, grad: Tensor, state: dict[str, Tensor], hyper: dict[str, Any]) -> Coroutine:
    """One update, element by element: it needs nothing from the other ranks."""
    direction = adam_direction(grad, state, hyper)
    step_with_decay(param, direction, hyper)
    return direction
    yield  # makes this function a coroutine, like the rules that do reduce


def adam_direction(grad: Tensor, state: dict[str, Tensor], hyper: dict[str, Any]) -> Tensor:
    """Adam's update before the learning rate, (numel,): the bias-corrected moments' quotient. Moves the moments on."""
    beta1, beta2 = hyper["betas"]
    step = int(state["step"])
    momentum = state["exp_avg"].lerp_(grad, 1 - beta1)
    second_moment = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    denominator = (second_moment / (1 - beta2**step)).sqrt_().add_(hyper["eps"])
    return (momentum / (1 - beta1**step)).div_(denominator)


def state(interval: Interval) -> StateSpec:
    """Two moments of every element."""
    return {"step": Kind.STEP, "exp_avg": Kind.LOCAL, "exp_avg_sq": Kind.LOCAL}


RULE = Rule("AdamW", update, state)


class AdamW(ShardedOptimizer):
    """AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019), the measure of the others.

    Same mathematics as `torch.optim.AdamW`, with the same arguments and errors as `CAME`.
    """

    rule = RULE

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2
    ) -> None:
        check_common(lr, betas, weight_decay)
        check("eps", eps, eps > 0, "above 0")
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))
