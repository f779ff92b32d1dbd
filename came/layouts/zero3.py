"""DeepSpeed ZeRO-3: each rank updates one slice of every parameter; the slices of a sub-group lie in one flat tensor."""

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor

from came.interval import Interval
from came.layouts import LayoutError, Shard


def shard_of(shape: tuple[int, ...], numel: int, partition: int, rank: int) -> tuple[Interval, bool] | None:
    """What rank `rank` holds of a parameter cut into slices of `partition` elements, and whether other ranks hold the rest.

    None where the rank neither holds any of the parameter nor takes part in its reductions.
    """
    split = numel > partition
    start = min(rank * partition, numel)
    stop = min(start + partition, numel)
    if start == stop and not split:
        return None
    return Interval(shape, start, stop), split


class Zero3:
    """`step()` is called once per sub-group; the engine's optimizer knows each parameter's sub-group and place in it."""

    name = "ZeRO-3"
    partitioned = True

    def handed(self, group_params: Sequence[Tensor], params: Sequence[Any]) -> list[Tensor]:
        sub_groups = {_position(param)[0]: _sub_group_tensor(param) for param in filter(_is_partitioned, params)}
        return [tensor for _, tensor in sorted(sub_groups.items())]

    def locate(self, handed: Tensor, group_params: Sequence[Tensor], params: Sequence[Any]) -> list[Shard]:
        members = [param for param in filter(_is_partitioned, params) if _sub_group_tensor(param) is handed]
        if not members:
            raise LayoutError("ZeRO-3: no parameter of the optimizer lives in the sub-group that it is handed")
        shards = []
        for param in members:
            _, offset, partition = _position(param)
            group = param.ds_process_group
            found = shard_of(tuple(param.ds_shape), param.ds_numel, partition, dist.get_rank(group))
            if found is not None:
                interval, split = found
                shards.append(Shard(param, interval, offset, group if split else None))
        return shards

    def model_weights(self, shard: Shard) -> Tensor:
        return shard.param.ds_tensor.detach().view(-1)[: shard.interval.numel]

    def groups(self, params: Sequence[Any]) -> list[Any]:
        return list(dict.fromkeys(param.ds_process_group for param in filter(_is_partitioned, params)))

    def push_masters(self, engine_optimizer: Any) -> None:
        engine_optimizer.checkpoint_event_prologue()
        for index in range(len(engine_optimizer.fp16_groups)):
            engine_optimizer._reassign_or_swap_out_partitioned_parameters(index)
        engine_optimizer.checkpoint_event_epilogue()


LAYOUT = Zero3()


def applies(params: Sequence[Any]) -> bool:
    return any(_is_partitioned(param) for param in params)


def _is_partitioned(param: Any) -> bool:
    """Trainable, not empty, and taken over by ZeRO-3."""
    return hasattr(param, "ds_id") and param.requires_grad and param.ds_numel > 0 and hasattr(param, "_z3_optimizer")


def _position(param: Any) -> tuple[int, int, int]:
    """(sub-group, offset of this rank's slice in the sub-group's flat tensor, elements per slice)."""
    owner = param._z3_optimizer
    return owner.grad_position[owner.get_param_id(param)]


def _sub_group_tensor(param: Any) -> Tensor:
    """This rank's fp32 master weights of all parameters in the same sub-group."""
    return param._z3_optimizer.fp32_partitioned_groups_flat[_position(param)[0]]
