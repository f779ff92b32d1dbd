"""LAMB: layer-wise adaptive moments for large batches (You et al., ICLR 2020, Algorithm 2).

Defaults are those of the paper's BERT runs: betas 0.9, 0.999; eps 1e-6; weight decay 0.01; the identity for its scaling function phi.
"""

from typing import Any

import torch
from torch import Tensor

from came.interval import Interval
from came.lockstep import Coroutine, Sum
from came.optimizer import ShardedOptimizer
from came.rules import Rule
from came.rules.adamw import adam_direction, state
from came.rules.checks import check, check_common


def update(interval: Interval, param: Tensor, grad: Tensor, state: dict[str, Tensor], hyper: dict[str, Any]) -> Coroutine:
    """One update of the elements of `interval`; one reduction, for the norms over the whole parameter."""
    direction = adam_direction(grad, state, hyper)  # m / (sqrt(v) + eps), both bias-corrected
    if hyper["weight_decay"]:
        direction.add_(param, alpha=hyper["weight_decay"])

    if adapts(hyper):
        squares = yield Sum(param.square().sum(), direction.square().sum())
        direction.mul_(trust_ratio(*squares))

    param.add_(direction, alpha=-hyper["lr"])
    return direction


def trust_ratio(weight_squares: Tensor, update_squares: Tensor) -> Tensor:
    """|weights| / |update| from the sums of their squares, scalars; 1 where either is zero, as in the authors' implementation."""
    ratio = (weight_squares / update_squares).sqrt_()
    return torch.where((weight_squares > 0) & (update_squares > 0), ratio, torch.ones_like(ratio))


def adapts(hyper: dict[str, Any]) -> bool:
    """Whether a parameter group is scaled by its trust ratios. Unless the group says so itself, it is where it has weight decay: biases
    and normalisation weights, which have none, are then left out of the adaptation, as by the authors' implementation
    (`exclude_from_layer_adaptation` follows `exclude_from_weight_decay`) and by NVIDIA's (`use_nvlamb=False`)."""
    return hyper["weight_decay"] > 0 if hyper["adapt"] is None else hyper["adapt"]


RULE = Rule("LAMB", update, state)


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
    """

    rule = RULE

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        adapt: bool | None = None,
    ) -> None:
        check_common(lr, betas, weight_decay)
        check("eps", eps, eps > 0, "above 0")
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, adapt=adapt))
