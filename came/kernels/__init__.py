"""The fused step of CAME on a GPU, in Triton: five launches whatever the number of parameters (one more where blocks of 8-bit momentum
end within rows; two more, and two packed all-reduces, where parameters are sharded), and nothing that the host waits for, so that a step
can be captured in a CUDA graph.

A second implementation of `came/rules/came.py` over the same intervals and the same state: a run may change from one to the other, and
checkpoints are the same. Read `passes.py` and `finalise.py` for the mathematics, `tables.py` for what lies where, `plan.py` for a step;
`trial.py` compares the kernels with the rule before they are trusted on a device.

This module imports no Triton; everything else here does, and is imported when the first fused step is taken.
"""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from came.layouts import local
from came.lockstep import Traffic
from came.momentum import MOMENTUM
from came.observation import Observer
from came.rules import Rule
from came.state import kept_dtype, working_dtype

if TYPE_CHECKING:
    from came.kernels.plan import Member, Plan
    from came.kernels.tables import Geometry
    from came.optimizer import Entry, Place, ShardedOptimizer

IMPLEMENTATIONS = ("auto", "eager", "triton")

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_MOMENTUM_DTYPES = (torch.float32, torch.bfloat16, torch.int8)

_LARGEST_COLS = 2**24
"""Elements of a tile are counted in 32 bits."""

_LARGEST_ROUNDED = 2**32
"""So are those of a parameter where random numbers are drawn for them."""


_LEAST_IN_A_STACK = 512
"""Elements of a matrix of a stack, on average over what is updated together, from which on `implementation="auto"` takes the kernels. The
tables have 376 bytes for a matrix, however small it is: from here on less than one byte per element, 376 for a convolution of 1 x 1."""


def option_without_kernel(hyper: dict[str, Any]) -> str | None:
    """The first option of a parameter group that the kernels do not have, by name."""
    return next((name for name in ("cautious", "trust_ratio", "legacy_1d") if hyper[name]), None)


def obstacle(place: "Place", state: dict[str, Tensor], rule: Rule, hyper: dict[str, Any], shapes: Iterable[Sequence[int]]) -> str | None:
    """Why the kernels do not take a handed tensor with its gradient and state; None where they do.

    `shapes` are those of the parameters that it may hold, the same on all ranks that share it. A rank that holds nothing of them keeps no
    momentum, and finds what the others do.
    """
    option = option_without_kernel(hyper)
    mine, gradient = local(place.handed), place.gradient
    if option is not None:
        return f"{option}=True has no kernel"
    if not available():
        return "Triton is not installed"
    if mine.device.type != "cuda" and not (mine.device.type == "cpu" and _interpreted()):
        return f"parameters on the {mine.device.type} have no kernel (but in Triton's interpreter, TRITON_INTERPRET=1)"
    if gradient.is_sparse:
        return "sparse gradients have no kernel"
    momentum = momentum_dtype(place.handed, state, rule)
    dtypes = ((mine.dtype, "parameters", _DTYPES), (gradient.dtype, "gradients", _DTYPES), (momentum, "momentum", _MOMENTUM_DTYPES))
    for dtype, what, taken in dtypes:
        if dtype not in taken:
            return f"{what} in {dtype} have no kernel"
    lying = {"gradients": gradient} | ({"momentum": local(state[MOMENTUM])} if MOMENTUM in state else {})
    for what, tensor in lying.items():
        if tensor.device != mine.device:
            return f"{what} lie on {tensor.device}, the parameters on {mine.device}"
    if not mine.is_contiguous():
        return "parameters that do not lie row-major have no kernel"
    for shape in shapes:
        if len(shape) >= 2 and shape[-1] > _LARGEST_COLS:
            return f"matrices of more than {_LARGEST_COLS} columns have no kernel"
        if momentum != torch.float32 and prod(shape) > _LARGEST_ROUNDED:
            return f"low-precision momentum of more than {_LARGEST_ROUNDED} elements has no kernel"
    return None


def momentum_dtype(handed: Tensor, state: dict[str, Tensor], rule: Rule) -> torch.dtype:
    """Of the momentum that is kept for a handed tensor or, where it holds nothing but padding, would be."""
    return state[MOMENTUM].dtype if MOMENTUM in state else kept_dtype(rule, MOMENTUM, working_dtype(handed))


@cache
def available() -> bool:
    return find_spec("triton") is not None


def _interpreted() -> bool:
    from came.kernels.batch import interpreted

    return interpreted()


def chosen_for(handed: Tensor) -> bool:
    """Whether `implementation="auto"` takes the kernels for what they can take."""
    mine = local(handed)
    return mine.is_cuda and _ampere_or_later(mine.device)


@cache
def _ampere_or_later(device: torch.device) -> bool:
    """NVIDIA's from the A100 on: older ones lack bfloat16, and Triton has left them."""
    return torch.version.cuda is not None and torch.cuda.get_device_capability(device) >= (8, 0)


def dwarfed(shapes: Sequence[Sequence[int]]) -> str | None:
    """Why `implementation="auto"` leaves parameters of these shapes to the rule though they have a kernel: where most of them are stacks of
    matrices so small that the kernels' tables would take more memory than all else."""
    counts = [prod(shape[:-2]) for shape in shapes]
    if sum(count for count in counts if count > 1) * _LEAST_IN_A_STACK <= sum(map(prod, shapes)):
        return None
    return f"stacks of matrices of fewer than {_LEAST_IN_A_STACK} elements would be dwarfed by the kernels' tables"


def distrusted(place: "Place", state: dict[str, Tensor], rule: Rule) -> str | None:
    """Why `implementation="auto"` leaves to the rule what has a kernel: where the kernels have failed their trial on this device."""
    from came.kernels import trial

    mine = local(place.handed)
    momentum = momentum_dtype(place.handed, state, rule)
    passed = trial.passes(mine.device, mine.dtype, momentum, place.layout.partitioned)
    return None if passed else "the kernels did not pass their trial on this device"


class FusedSteps:
    """The fused steps of one optimizer: the tables of every set of tensors that it has been handed.

    `geometry` is given by tests, whose matrices are small.
    """

    def __init__(self, optimizer: "ShardedOptimizer", geometry: "Geometry | None" = None) -> None:
        from came.kernels.tables import Geometry

        self._optimizer, self._geometry = optimizer, geometry or Geometry()
        self.plans: dict[tuple[int, ...], Plan] = {}
        self._captured: list[Plan] = []
        """What CUDA graphs speak of: kept as long as the optimizer."""

    def run(
        self, entries: "Sequence[Entry]", scale: Tensor | None, max_norm: float | None, observer: Observer | None, traffic: Traffic
    ) -> None:
        """One update of the entries, on whatever devices they are; see `Plan.run`. `max_norm` is for entries on one device."""
        by_device: dict[torch.device, list[Entry]] = {}
        for entry in entries:
            by_device.setdefault(local(entry.place.handed).device, []).append(entry)
        for device, found in by_device.items():
            gradients = [entry.place.gradient.contiguous() for entry in found]
            with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
                plan, members = self._plan(found, gradients)
                plan.run(members, gradients, scale, max_norm, observer, traffic)

    def _plan(self, entries: "Sequence[Entry]", gradients: Sequence[Tensor]) -> "tuple[Plan, list[Member]]":
        """The tables for these entries: those that there are, or new ones in place of any that speak of one of the same tensors."""
        from came.kernels.plan import Member, Plan

        members = [Member(entry.place, self._optimizer.state[entry.place.handed], entry.group) for entry in entries]
        key = tuple(id(entry.place.handed) for entry in entries)
        capturing = gradients[0].is_cuda and torch.cuda.is_current_stream_capturing()
        plan = self.plans.get(key)
        if plan is None or not plan.fits(members, gradients):
            if capturing:
                raise RuntimeError("a CUDA graph cannot record the first step over a set of tensors: take one before capturing")
            made = (self._geometry, self._optimizer.state_views, self._optimizer.parameter_numbers())
            plan = Plan(members, gradients, *made)
            self.plans = {others: kept for others, kept in self.plans.items() if not set(others) & set(key)} | {key: plan}
        if capturing:
            if plan.counts:
                raise RuntimeError(
                    "bias_correction and low-precision momentum need the number of the step, which a CUDA graph does not count"
                )
            self._captured.append(plan)
        return plan, members
