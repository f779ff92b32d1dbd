"""What each rank is going to hold, foretold from shapes alone: the tensors that its optimizer will be handed, and the shards in them."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import prod

from came.interval import Interval
from came.layouts import fsdp2, zero3, zero12

FSDP2 = "fsdp2"

SUB_GROUP_SIZE = 1_000_000_000
"""Elements of a rank at which DeepSpeed closes a sub-group of ZeRO-3 (`sub_group_size`)."""

_FLAT_ALIGNMENT = 2
"""DeepSpeed pads ZeRO-1/2's flat buffer to a multiple of this times the number of ranks (nccl_start_alignment_factor)."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Handed:
    """One tensor that a rank updates."""

    numel: int
    """Its elements, padding included."""
    intervals: tuple[Interval, ...]
    """What it holds of which parameters; where that is nothing, empty intervals of those in whose reductions the rank takes part."""


def handed(shapes: Sequence[Shape], world_size: int, stage: int | str, rank: int) -> list[Handed]:
    """The tensors of one parameter group (at ZeRO-3 of one sub-group, see `sub_groups`) of trainable parameters, in the optimizer's order.

    DeepSpeed's `round_robin_gradients` and `parameter_alignment` order the buffers differently and are not foretold.
    """
    shapes = _not_empty(shapes)
    if stage == 0:
        return [Handed(prod(shape), (Interval.whole(shape),)) for shape in shapes]
    if stage == FSDP2:
        return [_fsdp2(shape, world_size, rank) for shape in shapes]
    if not shapes:
        return []
    return [_zero12(_flat_buffer(shapes, world_size), rank) if int(stage) < 3 else _zero3(shapes, world_size, rank)]


def split(shapes: Sequence[Shape], world_size: int, stage: int | str) -> list[Shape]:
    """The parameters that several ranks share, so that sums over them need reductions: the same on every rank."""
    shapes = _not_empty(shapes)
    if stage == 0 or world_size == 1:
        return []
    if stage == FSDP2:
        return list(shapes)
    if stage == 3:
        return [shape for shape in shapes if prod(shape) > slice_of_each(shape, world_size)]
    flat = _flat_buffer(shapes, world_size)
    places = [(at // flat.partition, (end - 1) // flat.partition) for at, end in zip(flat.edges, flat.edges[1:])]
    return [shape for shape, (first, last) in zip(shapes, places, strict=True) if first != last]


def flat_partition(shapes: Sequence[Shape], world_size: int) -> int:
    """Elements of one rank's slice of the flat buffer of a group at ZeRO-1/2."""
    alignment = _FLAT_ALIGNMENT * world_size
    return -(-sum(map(prod, shapes)) // alignment) * alignment // world_size


def slice_of_each(shape: Shape, world_size: int) -> int:
    """Elements of one rank's slice of a parameter at ZeRO-3."""
    return -(-prod(shape) // world_size)


def sub_groups(shapes: Sequence[Shape], world_size: int, size: int = SUB_GROUP_SIZE) -> list[list[Shape]]:
    """A parameter group as ZeRO-3 cuts it: `step()` is called once for each part."""
    found: list[list[Shape]] = [[]]
    filled = 0
    for shape in shapes:
        if filled >= size:
            found.append([])
            filled = 0
        found[-1].append(tuple(shape))
        filled += slice_of_each(shape, world_size)
    return found


def _not_empty(shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    """Zero-element parameters are left out by DeepSpeed, and hold no state anywhere."""
    return tuple(tuple(shape) for shape in shapes if prod(shape))


@dataclass(frozen=True)
class _FlatBuffer:
    shapes: tuple[Shape, ...]
    edges: tuple[int, ...]
    """Where each parameter begins, and where the last one ends."""
    partition: int


@lru_cache(maxsize=64)
def _flat_buffer(shapes: tuple[Shape, ...], world_size: int) -> _FlatBuffer:
    return _FlatBuffer(shapes, tuple(accumulate(map(prod, shapes), initial=0)), flat_partition(shapes, world_size))


def _zero12(flat: _FlatBuffer, rank: int) -> Handed:
    start, stop = rank * flat.partition, (rank + 1) * flat.partition
    holds = range(max(0, bisect_right(flat.edges, start) - 1), min(bisect_left(flat.edges, stop), len(flat.shapes)))

    def shards(places: Iterable[int]) -> list[Interval]:
        edges = ((flat.shapes[place], flat.edges[place], flat.edges[place + 1]) for place in places)
        found = (zero12.shard_of(shape, end - at, at, flat.partition, rank) for shape, at, end in edges)
        return [item[0] for item in found if item is not None]

    return Handed(flat.partition, tuple(shards(holds) or shards(range(len(flat.shapes)))))


def _zero3(shapes: Sequence[Shape], world_size: int, rank: int) -> Handed:
    partitions = [slice_of_each(shape, world_size) for shape in shapes]
    found = [zero3.shard_of(shape, prod(shape), size, rank) for shape, size in zip(shapes, partitions, strict=True)]
    return Handed(sum(partitions), tuple(item[0] for item in found if item is not None))


def _fsdp2(shape: Shape, world_size: int, rank: int) -> Handed:
    interval = fsdp2.intervals_of(shape, 0, world_size)[rank]
    return Handed(interval.numel, (interval,))
