"""Bytes of optimizer state that each rank keeps, predicted from shapes alone."""

from collections.abc import Sequence
from math import prod

from came.interval import Interval
from came.layouts import fsdp2, zero3, zero12
from came.momentum import SCALE
from came.rules import Rule
from came.state import kept, kept_dtype, numel_by_name

_FLAT_ALIGNMENT = 2
"""DeepSpeed pads ZeRO-1/2's flat buffer to a multiple of this times the number of ranks (nccl_start_alignment_factor)."""


FSDP2 = "fsdp2"


def state_bytes(rule: Rule, groups: Sequence[Sequence[tuple[int, ...]]], world_size: int, stage: int | str) -> list[int]:
    """Bytes on each rank, to the byte.

    Args:
        rule: the optimizer's `rule`; of the class, or of an instance whose arguments decide what it keeps.
        groups: for each parameter group its trainable parameters' shapes, in the optimizer's order.
        world_size: ranks that share the parameters.
        stage: ZeRO stage 0 to 3 (0 also stands for plain PyTorch and DDP), or "fsdp2" for `fully_shard` along the first dimension.

    DeepSpeed's `round_robin_gradients` and `parameter_alignment` order the buffers differently and are not predicted.
    """
    return [sum(_group_bytes(rule, group, world_size, stage, rank) for group in groups) for rank in range(world_size)]


def _group_bytes(rule: Rule, shapes: Sequence[tuple[int, ...]], world_size: int, stage: int | str, rank: int) -> int:
    shapes = [tuple(shape) for shape in shapes if prod(shape)]
    if stage == 0:
        return sum(_bytes(rule, [Interval.whole(shape)], prod(shape)) for shape in shapes)
    if stage == FSDP2:
        return sum(_fsdp2_bytes(rule, shape, world_size, rank) for shape in shapes)
    intervals, handed = _zero12(shapes, world_size, rank) if int(stage) < 3 else _zero3(shapes, world_size, rank)
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


def _fsdp2_bytes(rule: Rule, shape: tuple[int, ...], world_size: int, rank: int) -> int:
    interval = fsdp2.intervals_of(shape, 0, world_size)[rank]
    numel = numel_by_name(rule, [interval], interval.numel)
    if SCALE in kept(rule, interval):
        numel[SCALE] = fsdp2.most_pieces(shape, 0, world_size)  # as many on every rank
    return _sum(rule, numel)


def _bytes(rule: Rule, intervals: list[Interval], handed_numel: int) -> int:
    return _sum(rule, numel_by_name(rule, intervals, handed_numel))


def _sum(rule: Rule, numel: dict[str, int]) -> int:
    return sum(count * kept_dtype(rule, name).itemsize for name, count in numel.items())
