"""LAMB: layer-wise adaptive moments for large batches (You et al., ICLR 2020, Algorithm 2).

Defaults are those of the paper's BERT runs: betas 0.9, 0.999; eps 1e-6; weight decay 0.01; the identity for its scaling function phi.
"""

from typing import Any

import torch
from torch import Tensor

from came.interval import Interval
from came.lockstep import Coroutine, Sum
from came.observation import Observer
from came.optimizer import ShardedOptimizer
from came.rules import Rule, add_decay_, step_
from came.rules.adamw import adam_direction, average_moments, state
from came.rules.adamw import check as check_as_adamw
from came.rules.checks import check_positive


def update(
    interval: Interval, param: Tensor, grad: Tensor, state: dict[str, Tensor], hyper: dict[str, Any], observer: Observer
) -> Coroutine:
    """One update of the elements of `interval`; one reduction, for the norms over the whole parameter."""
    moments, step = (state["exp_avg"], state["exp_avg_sq"]), int(state["step"])

    def direction(p: Tensor, m: Tensor, v: Tensor) -> Tensor:
        return add_decay_(adam_direction(m, v, step, hyper), p, hyper)

    def squared_direction(p: Tensor, g: Tensor, m: Tensor, v: Tensor) -> Tensor:
        average_moments(g, m, v, hyper)
        return direction(p, m, v).square_()

    update_squares = interval.sum(squared_direction, param, grad, *moments)
    ratio: Tensor | float = 1.0
    if adapts(hyper):
        ratio = trust_ratio(*(yield Sum(interval.sum(torch.square, param), update_squares)))

    def move(p: Tensor, m: Tensor, v: Tensor) -> None:
        scaled = direction(p, m, v).mul_(ratio)
        step_(p, scaled, hyper["lr"], observer)

    interval.each(move, param, *moments)


def trust_ratio(weight_squares: Tensor, update_squares: Tensor) -> Tensor:
    """|weights| / |update| from the sums of their squares, scalars; 1 where either is zero, as in the authors' implementation."""
    ratio = (weight_squares / update_squares).sqrt_()
    return torch.where((weight_squares > 0) & (update_squares > 0), ratio, torch.ones_like(ratio))


def adapts(hyper: dict[str, Any]) -> bool:
    """Whether a parameter group is scaled by its trust ratios. Unless the group says so itself, it is where it has weight decay: biases
    and normalisation weights, which have none, are then left out of the adaptation, as by the authors' implementation
    (`exclude_from_layer_adaptation` follows `exclude_from_weight_decay`) and by NVIDIA's (`use_nvlamb=False`)."""
    return hyper["weight_decay"] > 0 if hyper["adapt"] is None else hyper["adapt"]


def check(hyper: dict[str, Any]) -> None:
    check_as_adamw(hyper)
    if hyper["max_grad_norm"] is not None:
        check_positive(hyper, "max_grad_norm")


RULE = Rule("LAMB", update, state, check)


class LAMB(ShardedOptimizer):
    """LAMB (You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", ICLR 2020, Algorithm 2).

    AdamW's update, scaled for each parameter by |weights| / |update|, norms over the whole parameter however it is sharded. Keeps as
    much state as AdamW.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        betas: decay of the two moments, which are bias-corrected.
        eps: added to the root of the second moment.
        weight_decay: decoupled, and part of the update that the trust ratio scales.
        adapt: scale by the trust ratio or not; None, in the groups that have weight decay.
        maximize: ascend instead.
        max_grad_norm: first clip the gradients of all groups together to this norm, as the authors' and NVIDIA's BERT runs do (1.0). For
            parameters that are not sharded; where they are, their owner clips: DeepSpeed's `gradient_clipping`,
            `torch.nn.utils.clip_grad_norm_`.
    """

    rule = RULE

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        adapt: bool | None = None,
        maximize: bool = False,
        max_grad_norm: float | None = None,
    ) -> None:
        adam = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, {**adam, "adapt": adapt, "max_grad_norm": max_grad_norm})

    def gradient_scale(self) -> Tensor | None:
        """`max_grad_norm` over the norm of all gradients, where that is less than 1."""
        return self.scale_to_norm(self.defaults["max_grad_norm"])
