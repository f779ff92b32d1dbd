"""Bytes of optimizer state that each rank keeps, predicted from shapes alone."""

from collections.abc import Sequence

from came.layouts import fsdp2
from came.layouts.foretold import FSDP2, Handed, handed
from came.momentum import SCALE
from came.rules import Rule
from came.state import kept, kept_dtype, numel_by_name

__all__ = ["FSDP2", "state_bytes"]


def state_bytes(rule: Rule, groups: Sequence[Sequence[tuple[int, ...]]], world_size: int, stage: int | str) -> list[int]:
    """Bytes on each rank, to the byte.

    Args:
        rule: the optimizer's `rule`; of the class, or of an instance whose arguments decide what it keeps.
        groups: for each parameter group its trainable parameters' shapes, in the optimizer's order; for ZeRO-3 cut as by
            `came.layouts.foretold.sub_groups` where a group has more than `sub_group_size` elements on a rank.
        world_size: ranks that share the parameters.
        stage: ZeRO stage 0 to 3 (0 also stands for plain PyTorch and DDP), or "fsdp2" for `fully_shard` along the first dimension.

    DeepSpeed's `round_robin_gradients` and `parameter_alignment` order the buffers differently and are not predicted.
    """
    return [sum(state_bytes_of_rank(rule, group, world_size, stage, rank) for group in groups) for rank in range(world_size)]


def state_bytes_of_rank(rule: Rule, group: Sequence[tuple[int, ...]], world_size: int, stage: int | str, rank: int) -> int:
    """Of one group on one rank."""
    return sum(_bytes(rule, tensor, world_size, stage) for tensor in handed(group, world_size, stage, rank))


def _bytes(rule: Rule, tensor: Handed, world_size: int, stage: int | str) -> int:
    numel = numel_by_name(rule, tensor.intervals, tensor.numel)
    if stage == FSDP2 and SCALE in kept(rule, tensor.intervals[0]):
        numel[SCALE] = fsdp2.most_pieces(tensor.intervals[0].shape, 0, world_size)  # as many on every rank
    return sum(count * kept_dtype(rule, name).itemsize for name, count in numel.items())
