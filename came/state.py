"""Optimizer state of one handed tensor: allocated once under the authors' names, seen by the rules shard by shard.

For an unsharded parameter each state tensor has its natural shape; for a DTensor (FSDP2) elementwise state is a DTensor placed like the
parameter, and factors are plain tensors of their natural shapes. For a flat tensor of many parameters there is one flat tensor per
name: elementwise state lies where the weights lie if every shard has it (so that DeepSpeed's own tools find it), everything else is
packed in the order of the shards. A rank that holds nothing of a parameter keeps nothing of its state.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from came.interval import Interval
from came.layouts import Shard, is_dtensor, local
from came.rules import Kind, Rule, state_numel, state_shape

StateViews = dict[str, Tensor]
"""One shard's state as its rule sees it: local state (numel,), factors (matrices, rows) and (matrices, cols), step ()."""


def working_dtype(handed: Tensor) -> torch.dtype:
    """float32, in which state is kept and updates are computed; float64 for float64 parameters."""
    return torch.promote_types(handed.dtype, torch.float32)


def numel_by_name(rule: Rule, intervals: Sequence[Interval], handed_numel: int) -> dict[str, int]:
    """Elements of each state tensor kept for a handed tensor of `handed_numel` elements that holds `intervals`."""
    specs = [rule.state(interval) for interval in intervals if interval.numel]
    numel: dict[str, int] = {}
    for interval in intervals:
        for name, kind in rule.state(interval).items():
            if kind is Kind.STEP:
                numel[name] = 1
            elif interval.numel == 0:
                continue
            elif kind is Kind.LOCAL and _lies_like_the_weights(name, specs):
                numel[name] = handed_numel
            else:
                numel[name] = numel.get(name, 0) + state_numel(kind, interval)
    return numel


def allocate(rule: Rule, shards: Sequence[Shard], handed: Tensor) -> dict[str, Tensor]:
    """Zeroed state of a handed tensor, on its device; the step counts stay on the CPU."""
    if shards and (is_dtensor(handed) or handed.dim() > 1):
        return _allocate_for_one_parameter(rule, shards[0].interval, handed)
    numel = numel_by_name(rule, [shard.interval for shard in shards], handed.numel())
    kinds = {name: kind for shard in shards for name, kind in rule.state(shard.interval).items()}
    return {
        name: torch.zeros((), dtype=torch.float32)
        if kinds[name] is Kind.STEP
        else torch.zeros(count, dtype=working_dtype(handed), device=handed.device)
        for name, count in numel.items()
    }


def _allocate_for_one_parameter(rule: Rule, interval: Interval, handed: Tensor) -> dict[str, Tensor]:
    """State in natural shapes. Elementwise state of a DTensor is there on every rank, be it empty, for the collective calls of
    torch.distributed.checkpoint; factors are only where some of the parameter is."""
    allocated = {}
    for name, kind in rule.state(interval).items():
        if kind is Kind.STEP:
            allocated[name] = torch.zeros((), dtype=torch.float32)
        elif kind is Kind.LOCAL:
            allocated[name] = torch.zeros_like(handed, dtype=working_dtype(handed), memory_format=torch.contiguous_format)
        elif interval.numel:
            allocated[name] = torch.zeros(_natural_shape(kind, handed), dtype=working_dtype(handed), device=local(handed).device)
    return allocated


def views(rule: Rule, shards: Sequence[Shard], handed: Tensor, allocated: dict[str, Any]) -> list[StateViews]:
    """Each shard's part of the allocated state. A shard that holds nothing gets zeros that nobody keeps: its rule runs for the
    sake of the reductions alone."""
    specs = [rule.state(shard.interval) for shard in shards if shard.interval.numel]
    at: dict[str, int] = {}
    found = []
    for shard in shards:
        mine: StateViews = {}
        for name, kind in rule.state(shard.interval).items():
            shape = state_shape(kind, shard.interval)
            if kind is Kind.STEP:
                mine[name] = allocated[name]  # one count for all shards
            elif shard.interval.numel == 0:
                mine[name] = torch.zeros(shape, dtype=working_dtype(handed), device=local(handed).device)
            elif kind is Kind.LOCAL and _lies_like_the_weights(name, specs):
                mine[name] = shard.of(allocated[name])
            else:
                start = at.get(name, 0)
                at[name] = start + state_numel(kind, shard.interval)
                mine[name] = allocated[name].view(-1)[start : at[name]].view(shape)
        found.append(mine)
    return found


def _lies_like_the_weights(name: str, specs: Sequence[dict[str, Kind]]) -> bool:
    return all(name in spec for spec in specs)


def _natural_shape(kind: Kind, param: Tensor) -> tuple[int, ...]:
    match kind:
        case Kind.ROW:
            return tuple(param.shape[:-1])
        case Kind.COL:
            return (*param.shape[:-2], param.shape[-1])
        case _:
            return tuple(param.shape)
