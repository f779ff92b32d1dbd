"""What each rank is going to hold, foretold from shapes alone: the tensors that its optimizer will be handed, and the shards in them."""

from collections.abc import Sequence
from dataclasses import dataclass
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
    """One tensor that a rank updates: its elements, padding included, and what it holds of which parameters."""

    numel: int
    intervals: tuple[Interval, ...]
    split: tuple[bool, ...]
    """For each interval, whether other ranks hold the rest of the parameter."""


def handed(shapes: Sequence[Shape], world_size: int, stage: int | str, rank: int) -> list[Handed]:
    """The tensors of one parameter group (at ZeRO-3 of one sub-group, see `sub_groups`) of trainable parameters, in the optimizer's order.

    DeepSpeed's `round_robin_gradients` and `parameter_alignment` order the buffers differently and are not foretold.
    """
    shapes = [tuple(shape) for shape in shapes if prod(shape)]
    if stage == 0:
        return [Handed(prod(shape), (Interval.whole(shape),), (False,)) for shape in shapes]
    if stage == FSDP2:
        return [_fsdp2(shape, world_size, rank) for shape in shapes]
    return [_zero12(shapes, world_size, rank) if int(stage) < 3 else _zero3(shapes, world_size, rank)] if shapes else []


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


def _zero12(shapes: Sequence[Shape], world_size: int, rank: int) -> Handed:
    partition = flat_partition(shapes, world_size)
    found, at = [], 0
    for shape in shapes:
        found.append(zero12.shard_of(shape, prod(shape), at, partition, rank))
        at += prod(shape)
    return _together(partition, [(interval, split) for interval, _, split in filter(None, found)])


def _zero3(shapes: Sequence[Shape], world_size: int, rank: int) -> Handed:
    partitions = [slice_of_each(shape, world_size) for shape in shapes]
    found = [zero3.shard_of(shape, prod(shape), size, rank) for shape, size in zip(shapes, partitions, strict=True)]
    return _together(sum(partitions), list(filter(None, found)))


def _fsdp2(shape: Shape, world_size: int, rank: int) -> Handed:
    chunk = -(-shape[0] // world_size)
    start, stop = min(rank * chunk, shape[0]), min((rank + 1) * chunk, shape[0])
    interval = fsdp2.interval_of(shape, 0, stop - start, start)
    return Handed(interval.numel, (interval,), (world_size > 1,))


def _together(numel: int, found: list[tuple[Interval, bool]]) -> Handed:
    return Handed(numel, tuple(interval for interval, _ in found), tuple(split for _, split in found))
