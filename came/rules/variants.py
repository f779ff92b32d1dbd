"""The step of CAME, with the variants of it that are not the paper's."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from came.interval import Interval
from came.lockstep import Coroutine, Sum
from came.observation import Observer
from came.rules import add_decay_, step_
from came.rules.lamb import trust_ratio


def move(
    interval: Interval,
    param: Tensor,
    grad: Tensor,
    momentum: Tensor,
    direction_of: Callable[..., Tensor],
    factors: Sequence[Tensor],
    hyper: dict[str, Any],
    observer: Observer,
) -> Coroutine:
    """`param -= lr * (direction_of(momentum, *factors) + weight_decay * param)`.

    `cautious`: elements whose direction disagrees with the gradient's sign stay where they are, and the others move by numel / (their
    number + 1) times as much, counted over the whole parameter (Liang et al., "Cautious Optimizers", 2024, Algorithm 1; xi = 1). One
    more reduction. `trust_ratio`: LAMB's, for matrices; one more reduction.
    """
    boost: Tensor | float = 1.0
    if hyper["cautious"]:
        (agreeing,) = yield Sum(interval.sum(_agree, grad, momentum))
        boost = interval.total / (agreeing + 1)

    def direction(p: Tensor, g: Tensor, m: Tensor, *factors: Tensor) -> Tensor:
        full = direction_of(m, *factors)
        if hyper["cautious"]:
            full.mul_(_agree(g, m)).mul_(boost)
        return add_decay_(full, p, hyper)

    ratio: Tensor | None = None
    if hyper["trust_ratio"] and interval.factored:
        update_squares = interval.sum(lambda *views: direction(*views).square_(), param, grad, momentum, factors=factors)
        ratio = trust_ratio(*(yield Sum(interval.sum(torch.square, param), update_squares)))

    def step(p: Tensor, g: Tensor, m: Tensor, *factors: Tensor) -> None:
        full = direction(p, g, m, *factors)
        if ratio is not None:
            full.mul_(ratio)
        step_(p, full, hyper["lr"], observer)

    interval.each(step, param, grad, momentum, factors=factors)


def _agree(grad: Tensor, momentum: Tensor) -> Tensor:
    """Where the direction has the gradient's sign; it has the momentum's."""
    return grad * momentum > 0
