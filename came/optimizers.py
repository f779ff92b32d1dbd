"""The optimizers that people use: a rule, its hyper-parameters and their checks."""

from typing import Any

from came.optimizer import ShardedOptimizer
from came.rules import adamw, came


def _check(name: str, value: float, valid: bool, wanted: str) -> None:
    if not valid:
        raise ValueError(f"{name}={value} is not valid: it must be {wanted}")


def _check_common(lr: float, betas: tuple[float, ...], weight_decay: float) -> None:
    _check("lr", lr, lr >= 0, "0 or more")
    _check("weight_decay", weight_decay, weight_decay >= 0, "0 or more")
    for index, beta in enumerate(betas, start=1):
        _check(f"beta{index}", beta, 0 <= beta < 1, "in [0, 1)")


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

    rule = came.RULE

    def __init__(
        self,
        params: Any,
        lr: float = 2e-4,
        eps: tuple[float, float] = (1e-30, 1e-16),
        clip_threshold: float = 1.0,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        weight_decay: float = 0.0,
    ) -> None:
        _check_common(lr, betas, weight_decay)
        for index, value in enumerate(eps, start=1):
            _check(f"eps{index}", value, value > 0, "above 0")
        _check("clip_threshold", clip_threshold, clip_threshold > 0, "above 0")
        defaults = dict(lr=lr, eps=eps, clip_threshold=clip_threshold, betas=betas, weight_decay=weight_decay)
        super().__init__(params, defaults)


class AdamW(ShardedOptimizer):
    """AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019), the measure of the others.

    Same mathematics as `torch.optim.AdamW`, with the same arguments and errors as `CAME`.
    """

    rule = adamw.RULE

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2
    ) -> None:
        _check_common(lr, betas, weight_decay)
        _check("eps", eps, eps > 0, "above 0")
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))
