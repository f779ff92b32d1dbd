"""DeepSpeed ZeRO-1 and ZeRO-2, BF16_Optimizer included: each rank updates one slice of a flat buffer of the group's parameters."""

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor

from came.interval import Interval, overlap
from came.layouts import Shard


def shard_of(shape: tuple[int, ...], numel: int, at: int, partition: int, rank: int) -> tuple[Interval, int, bool] | None:
    """What rank `rank` holds of a parameter that begins at element `at` of a flat buffer cut into slices of `partition` elements.

    Returns its interval, the interval's offset in the rank's slice and whether other ranks hold the rest; None where the rank
    neither holds any of the parameter nor takes part in its reductions.
    """
    first, last = at // partition, (at + numel - 1) // partition
    split = first != last
    if not split and rank != first:
        return None
    start, stop = overlap(rank * partition, (rank + 1) * partition, at, at + numel)
    if start == stop:
        return Interval(shape, 0, 0), 0, split
    return Interval(shape, start - at, stop - at), start - rank * partition, split


class Zero12:
    """Model parameters are views of the group's flat buffer, so that a parameter's place is its storage offset."""

    name = "ZeRO-1/2"
    partitioned = True

    def handed(self, group_params: Sequence[Tensor], params: Sequence[Any]) -> list[Tensor]:
        return list(group_params)

    def locate(self, handed: Tensor, group_params: Sequence[Tensor], params: Sequence[Any]) -> list[Shard]:
        shards = []
        for param in filter(_is_flattened, params):
            rank = dist.get_rank(param._dp_group)
            found = shard_of(tuple(param.shape), param.numel(), param.data.storage_offset(), handed.numel(), rank)
            if found is not None:
                interval, offset, split = found
                shards.append(Shard(param, interval, offset, param._dp_group if split else None))
        return shards

    def model_weights(self, shard: Shard) -> Tensor:
        return shard.param.detach().view(-1)[shard.interval.start : shard.interval.stop]

    def groups(self, params: Sequence[Any]) -> list[Any]:
        return list(dict.fromkeys(param._dp_group for param in filter(_is_flattened, params)))

    def push_masters(self, engine_optimizer: Any) -> None:
        engine_optimizer.update_lp_params()


LAYOUT = Zero12()


def applies(params: Sequence[Any]) -> bool:
    return any(_is_flattened(param) for param in params)


def _is_flattened(param: Tensor) -> bool:
    """DeepSpeed marks the parameters that it moved into a flat buffer; frozen and empty ones stay where they were."""
    return hasattr(param, "_hp_mapping") and hasattr(param, "_dp_group")
