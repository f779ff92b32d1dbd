"""Before the kernels are trusted on a device, they make a few updates there beside the rule in PyTorch.

What a compiler or a driver makes of them is seen on no other machine: where the two differ, the rule it is, and it is said.
"""

import logging
from functools import cache

import torch
from torch import Tensor

from came.momentum import DTYPES

logger = logging.getLogger("came")

SHAPES = ((70, 515), (3, 20, 256), (700,))
"""A matrix whose rows are cut by the ends of tiles, a stack of matrices, a vector."""

_STEPS = 2
_BOUND, _ROUNDED_BOUND = 1e-4, 3e-2
"""Of the update's norm: float32 sums in another order; and rounding, where a value may come to lie on the other side of a draw."""


@cache
def passes(device: torch.device, weight: torch.dtype, momentum: torch.dtype) -> bool:
    """Whether the kernels make the rule's update on `device` for these dtypes, to rounding; tried once per process, some seconds."""
    try:
        by_rule, by_kernels = (updates(implementation, device, weight, momentum) for implementation in ("eager", "triton"))
    except Exception as error:  # whatever a compiler, a driver or a launch raises
        return _distrust(device, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
    bound = _BOUND if weight == momentum == torch.float32 else _ROUNDED_BOUND
    errors = [float((found - wanted).norm() / wanted.norm()) for found, wanted in zip(by_kernels, by_rule, strict=True)]
    if not all(error <= bound for error in errors):  # a NaN is none
        return _distrust(device, f"their update is off by {max(errors):.1e} of its norm")
    return True


def updates(implementation: str, device: torch.device, weight: torch.dtype, momentum: torch.dtype) -> list[Tensor]:
    """How far some steps of CAME move parameters of `SHAPES`, in float32."""
    from came.rules.came import CAME

    generator = torch.Generator().manual_seed(0)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, weight)

    params = [torch.nn.Parameter(draw(shape)) for shape in SHAPES]
    before = [param.detach().float().clone() for param in params]
    kept = next(name for name, dtype in DTYPES.items() if dtype == momentum)
    optimizer = CAME(params, lr=0.05, weight_decay=0.01, implementation=implementation, momentum_dtype=kept)
    for _ in range(_STEPS):
        for param, shape in zip(params, SHAPES, strict=True):
            param.grad = draw(shape)
        optimizer.step()
    return [param.detach().float() - old for param, old in zip(params, before, strict=True)]


def _distrust(device: torch.device, why: str) -> bool:
    logger.warning(f"CAME: the kernels did not pass their trial on {device}, and the rule in PyTorch is taken ({why})")
    return False
