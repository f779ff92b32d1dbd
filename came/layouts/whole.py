"""No sharding: every rank holds every parameter whole (plain PyTorch, DDP, DeepSpeed stage 0)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from came.interval import Interval
from came.layouts import Layout, LayoutError, Shard


class Whole:
    """The optimizer is handed the model's own parameters."""

    name = "unsharded"
    partitioned = False

    def handed(self, group_params: Sequence[Tensor], params: Sequence[Tensor]) -> list[Tensor]:
        return list(group_params)

    def locate(self, handed: Tensor, group_params: Sequence[Tensor], params: Sequence[Tensor]) -> list[Shard]:
        return [Shard(handed, Interval.whole(handed.shape), 0, None)] if handed.numel() else []

    def model_weights(self, shard: Shard) -> Tensor:
        return shard.param.detach().reshape(-1)

    def groups(self, params: Sequence[Tensor]) -> list[Any]:
        return []

    def push_masters(self, engine_optimizer: Any) -> None:
        """Nothing to do: the masters are the model's weights."""


class WholeCopies(Whole):
    """The optimizer is handed fp32 copies of the parameters (DeepSpeed stage 0 in bf16 and fp16)."""

    name = "unsharded, fp32 copies"

    def locate(self, handed: Tensor, group_params: Sequence[Tensor], params: Sequence[Tensor]) -> list[Shard]:
        param = next(mine for copy, mine in zip(group_params, _trainable(params), strict=True) if copy is handed)
        return [Shard(param, Interval.whole(param.shape), 0, None)] if handed.numel() else []

    def push_masters(self, engine_optimizer: Any) -> None:
        for copies, params in zip(engine_optimizer.fp32_groups, engine_optimizer.fp16_groups, strict=True):
            torch._foreach_copy_(params, copies)


def layout(group_params: Sequence[Tensor], params: Sequence[Tensor]) -> Layout:
    """Own parameters or copies of them. Raises LayoutError for anything else, such as a flat buffer."""
    if all(any(handed is param for param in params) for handed in group_params):
        return Whole()
    if [handed.shape for handed in group_params] == [param.shape for param in _trainable(params)]:
        return WholeCopies()
    raise LayoutError(
        f"the optimizer was built with {len(params)} parameters and is now handed {len(group_params)} tensors of other shapes, first "
        f"{tuple(group_params[0].shape)}: matrices would be treated as vectors. Supported: plain PyTorch, DDP, ZeRO stages 0-3, FSDP2"
    )


def _trainable(params: Sequence[Tensor]) -> list[Tensor]:
    return [param for param in params if param.requires_grad]
