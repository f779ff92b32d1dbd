"""Bytes of optimizer state that each rank keeps, predicted from shapes alone."""

from collections.abc import Sequence
from math import prod

from came.interval import Interval
from came.layouts import zero3, zero12
from came.rules import Rule
from came.state import numel_by_name

BYTES_PER_VALUE = 4
"""State is float32; so are the step counts."""

_FLAT_ALIGNMENT = 2
"""DeepSpeed pads ZeRO-1/2's flat buffer to a multiple of this times the number of ranks (nccl_start_alignment_factor)."""


def state_bytes(rule: Rule, groups: Sequence[Sequence[tuple[int, ...]]], world_size: int, stage: int) -> list[int]:
    """Bytes on each rank, for parameter groups given as lists of shapes in the optimizer's order, at ZeRO `stage` 0 to 3.

    DeepSpeed's `round_robin_gradients` and `parameter_alignment` order the buffers differently and are not predicted.
    """
    return [sum(_group_bytes(rule, group, world_size, stage, rank) for group in groups) for rank in range(world_size)]


def _group_bytes(rule: Rule, shapes: Sequence[tuple[int, ...]], world_size: int, stage: int, rank: int) -> int:
    shapes = [tuple(shape) for shape in shapes if prod(shape)]
    if stage == 0:
        return sum(_bytes(rule, [Interval.whole(shape)], prod(shape)) for shape in shapes)
    intervals, handed = _zero12(shapes, world_size, rank) if stage < 3 else _zero3(shapes, world_size, rank)
    return _bytes(rule, intervals, handed)


def _zero12(shapes: Sequence[tuple[int, ...]], world_size: int, rank: int) -> tuple[list[Interval], int]:
    alignment = _FLAT_ALIGNMENT * world_size
    partition = -(-sum(map(prod, shapes)) // alignment) * alignment // world_size
    intervals, at = [], 0
    for shape in shapes:
        found = zero12.shard_of(shape, prod(shape), at, partition, rank)
        if found is not None:
            intervals.append(found[0])
        at += prod(shape)
    return intervals, partition


def _zero3(shapes: Sequence[tuple[int, ...]], world_size: int, rank: int) -> tuple[list[Interval], int]:
    partitions = [-(-prod(shape) // world_size) for shape in shapes]
    found = [zero3.shard_of(shape, prod(shape), size, rank) for shape, size in zip(shapes, partitions, strict=True)]
    return [item[0] for item in found if item is not None], sum(partitions)


def _bytes(rule: Rule, intervals: list[Interval], handed_numel: int) -> int:
    return BYTES_PER_VALUE * sum(numel_by_name(rule, intervals, handed_numel).values())
