"""Bytes of optimizer state that each rank keeps, predicted from shapes alone."""

from collections.abc import Sequence

from came.layouts.foretold import FSDP2, handed
from came.rules import Rule
from came.state import numel_by_name

__all__ = ["BYTES_PER_VALUE", "FSDP2", "state_bytes"]

BYTES_PER_VALUE = 4
"""State is float32; so are the step counts."""


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
    return BYTES_PER_VALUE * sum(
        sum(numel_by_name(rule, tensor.intervals, tensor.numel).values()) for tensor in handed(group, world_size, stage, rank)
    )
