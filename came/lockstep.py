"""Run the rules of all parameters together, with one packed all-reduce per round and process group.

A rule is a coroutine: where the paper sums over a whole matrix it yields `Sum(...)` (`Max(...)` for a maximum), and the driver sends back
the same tensors combined over the ranks. All rules advance in lock-step, so that a round costs one collective however many parameters
there are.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Reduction:
    """Tensors that are to be combined over the ranks that share a parameter."""

    op: Any
    tensors: tuple[Tensor, ...]


def Sum(*tensors: Tensor) -> Reduction:  # noqa: N802 (reads as a type at the point of use)
    """Add the tensors over the ranks; the rule receives the sums."""
    return Reduction(dist.ReduceOp.SUM, tensors)


def Max(*tensors: Tensor) -> Reduction:  # noqa: N802
    """Take each element's maximum over the ranks; the rule receives the maxima."""
    return Reduction(dist.ReduceOp.MAX, tensors)


Coroutine = Generator[Reduction, Any, None]
"""Yields reductions, receives their results, at its end the update is made."""


@dataclass(frozen=True)
class Job:
    """One rule at work on this rank's share of one parameter."""

    coroutine: Coroutine
    group: Any
    """Ranks that share the parameter; None when this rank holds all of it, and nothing needs to be reduced."""


@dataclass
class Traffic:
    """What the reductions of one `step()` sent: collective calls and bytes of this rank's packed buffers."""

    calls: int = 0
    num_bytes: int = 0


Combine = Callable[[Tensor, Any, Any], Tensor]
"""(tensor, operation, process group) -> the tensor combined over the group's ranks."""


def run(jobs: Iterable[Job], traffic: Traffic, combine: Combine | None = None) -> None:
    """Drive every job to its end, with `all_reduce` for `combine` if none is given.

    A job that needs no other rank runs to its end before the next is made (its temporaries are then freed); the others wait for
    each other at every reduction.
    """
    waiting: list[tuple[Job, Reduction]] = []

    def advance(job: Job, reduced: tuple[Tensor, ...] | None) -> Reduction | None:
        try:
            return job.coroutine.send(reduced)
        except StopIteration:
            return None

    for job in jobs:
        request = advance(job, None)
        while job.group is None and request is not None:
            request = advance(job, request.tensors)
        if request is not None:
            waiting.append((job, request))

    while waiting:
        reduced = _combined(waiting, traffic, combine or all_reduce)
        answers = [(job, advance(job, tensors)) for (job, _), tensors in zip(waiting, reduced, strict=True)]
        waiting = [(job, request) for job, request in answers if request is not None]


def _combined(waiting: list[tuple[Job, Reduction]], traffic: Traffic, combine: Combine) -> list[tuple[Tensor, ...]]:
    """Every request's tensors, combined over the ranks: one collective per (process group, operation, dtype)."""
    packs: dict[tuple[Any, ...], list[int]] = {}
    for index, (job, request) in enumerate(waiting):
        packs.setdefault((job.group, request.op, request.tensors[0].dtype), []).append(index)

    reduced: list[tuple[Tensor, ...]] = [()] * len(waiting)
    for (group, op, _), members in packs.items():
        flat = torch.cat([tensor.reshape(-1) for index in members for tensor in waiting[index][1].tensors])
        flat = combine(flat, op, group)
        traffic.calls += 1
        traffic.num_bytes += flat.numel() * flat.element_size()
        at = 0
        for index in members:
            parts = []
            for tensor in waiting[index][1].tensors:
                parts.append(flat[at : at + tensor.numel()].view(tensor.shape))
                at += tensor.numel()
            reduced[index] = tuple(parts)
    return reduced


def all_reduce(tensor: Tensor, op: Any, group: Any) -> Tensor:
    """`tensor` combined over the ranks of `group` (None: all), in place where the group's backend reaches its device; what lies on the CPU
    (offloaded state) travels by the GPU where NCCL is all there is."""
    backends = {device.type for device in (group or _everyone())._device_types}
    if tensor.device.type in backends:
        dist.all_reduce(tensor, op, group=group)
        return tensor
    carried = tensor.to(backends.pop())
    dist.all_reduce(carried, op, group=group)
    return carried.to(tensor.device)


def _everyone() -> Any:
    return dist.group.WORLD


def all_agree(here: bool, group: Any) -> bool:
    """Whether `here` is true on every rank of `group`."""
    return agreed([here], group)[0]


def agreed(here: Sequence[bool], group: Any) -> list[bool]:
    """Which of `here`, as many on each rank of `group`, are true on all of them."""
    return all_reduce(torch.tensor(here, dtype=torch.int64), dist.ReduceOp.MIN, group).bool().tolist()
