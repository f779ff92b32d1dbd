"""Before the kernels are trusted on a device, they make a few updates there beside the rule in PyTorch.

What a compiler or a driver makes of them is seen on no other machine: where the two differ, the rule it is, and it is said.
"""

import logging
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from came.momentum import DTYPES

if TYPE_CHECKING:
    from came.rules.came import CAME

logger = logging.getLogger("came")

SHAPES = ((70, 515), (3, 20, 256), (700,))
"""A matrix whose rows are cut by the ends of tiles, a stack of matrices, a vector."""

_STEPS = 2
_BOUND, _ROUNDED_BOUND = 1e-4, 3e-2
"""Of the update's norm: float32 sums in another order; and rounding, where a value may come to lie on the other side of a draw."""


RULE, WHOLE, SPLIT = "rule", "whole", "split"
"""Ways to take a step: the rule in PyTorch; the kernels for whole parameters; those for parameters that are split over ranks."""


@cache
def passes(device: torch.device, weight: torch.dtype, momentum: torch.dtype, split: bool = False) -> bool:
    """Whether the kernels make the rule's update on `device` for these dtypes, to rounding; with `split` also those for parameters that
    are split over ranks. Tried once per process, some seconds; no other rank takes part."""
    bound = _BOUND if weight == momentum == torch.float32 else _ROUNDED_BOUND
    try:
        by_rule = updates(RULE, device, weight, momentum)
        for way in (WHOLE, SPLIT) if split else (WHOLE,):
            by_kernels = updates(way, device, weight, momentum)
            errors = [float((found - wanted).norm() / wanted.norm()) for found, wanted in zip(by_kernels, by_rule, strict=True)]
            if not all(error <= bound for error in errors):  # a NaN is none
                return _distrust(device, f"their update of {way} parameters is off by {max(errors):.1e} of its norm")
    except Exception as error:  # whatever a compiler, a driver or a launch raises
        return _distrust(device, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
    return True


def updates(way: str, device: torch.device, weight: torch.dtype, momentum: torch.dtype) -> list[Tensor]:
    """How far some steps of CAME, taken in one of the ways, move parameters of `SHAPES`, in float32."""
    from came.rules.came import CAME

    generator = torch.Generator().manual_seed(0)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, weight)

    params = [torch.nn.Parameter(draw(shape)) for shape in SHAPES]
    before = [param.detach().float().clone() for param in params]
    kept = next(name for name, dtype in DTYPES.items() if dtype == momentum)
    implementation = "eager" if way == RULE else "triton"
    optimizer = CAME(params, lr=0.05, weight_decay=0.01, implementation=implementation, momentum_dtype=kept)
    for _ in range(_STEPS):
        for param, shape in zip(params, SHAPES, strict=True):
            param.grad = draw(shape)
        if way == SPLIT:
            _step_as_if_split(optimizer)
        else:
            optimizer.step()
    return [param.detach().float() - old for param, old in zip(params, before, strict=True)]


def _step_as_if_split(optimizer: "CAME") -> None:
    """A step of the launches that parameters take of which other ranks hold the rest. Here they hold nothing, so that this rank's sums
    are those of all."""
    from came.kernels.plan import Member, Plan
    from came.kernels.tables import Geometry

    members = []
    for place in optimizer.places():
        optimizer.state_views(place)  # allocates
        optimizer.state[place.handed]["step"] += 1
        shards = [replace(shard, group=SPLIT) for shard in place.shards]
        members.append(Member(replace(place, shards=shards), optimizer.state[place.handed], optimizer.param_groups[0]))
    gradients = [member.place.gradient for member in members]
    device = gradients[0].device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        plan = Plan(members, gradients, Geometry(), optimizer.state_views, optimizer.parameter_numbers())
        for _ in plan.launches(members, gradients):
            pass


def _distrust(device: torch.device, why: str) -> bool:
    logger.warning(f"CAME: the kernels did not pass their trial on {device}, and the rule in PyTorch is taken ({why})")
    return False
