"""Optimizer state of one handed tensor: allocated once under the authors' names, seen by the rules shard by shard.

For an unsharded parameter each state tensor has its natural shape; for a DTensor (FSDP2) elementwise state is a DTensor placed like the
parameter, and factors are plain tensors of their natural shapes. For a flat tensor of many parameters there is one flat tensor per
name: elementwise state lies where the weights lie if every shard has it (so that DeepSpeed's own tools find it), everything else is
packed in the order of the shards. A rank that holds nothing of a parameter keeps nothing of its state.

Momentum in 8 bits has a scale for each of its pieces (`came.momentum`), packed likewise. Those of a DTensor are a DTensor of (ranks, most
pieces of a rank), a row for each rank: PyTorch's own checkpoints then restore them on as many ranks, and refuse to on others.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from came.interval import Interval
from came.layouts import Shard, fsdp2, is_dtensor, local
from came.lockstep import Coroutine
from came.momentum import DTYPES, MOMENTUM, SCALE, decode, encode_
from came.observation import Observer
from came.rounding import Draws
from came.rules import Kind, Rule, StateSpec, state_numel, state_shape

StateViews = dict[str, Tensor]
"""One shard's state as it is kept: local state (numel,), factors (matrices, rows) and (matrices, cols), scales (pieces,), step ()."""


def working_dtype(handed: Tensor) -> torch.dtype:
    """float32, in which updates are computed; float64 for float64 parameters."""
    return torch.promote_types(handed.dtype, torch.float32)


def kept(rule: Rule, interval: Interval) -> StateSpec:
    """What is kept of an interval's state: what the rule sees, and the scales of its momentum where that is in 8 bits."""
    spec = rule.state(interval)
    return {**spec, SCALE: Kind.PIECE} if MOMENTUM in spec and rule.momentum_dtype == "int8" else spec


def kept_dtype(rule: Rule, name: str, working: torch.dtype = torch.float32) -> torch.dtype:
    """The dtype in which state `name` is kept where updates are computed in `working`."""
    if name == MOMENTUM and rule.momentum_dtype != "float32":
        return DTYPES[rule.momentum_dtype]
    return torch.float32 if name in (SCALE, "step") else working


def numel_by_name(rule: Rule, intervals: Sequence[Interval], handed_numel: int) -> dict[str, int]:
    """Elements of each state tensor kept for a handed tensor of `handed_numel` elements that holds `intervals`."""
    specs = [rule.state(interval) for interval in intervals if interval.numel]
    numel: dict[str, int] = {}
    for interval in intervals:
        for name, kind in kept(rule, interval).items():
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
    kinds = {name: kind for shard in shards for name, kind in kept(rule, shard.interval).items()}
    return {
        name: torch.zeros((), dtype=torch.float32)
        if kinds[name] is Kind.STEP
        else torch.zeros(count, dtype=kept_dtype(rule, name, working_dtype(handed)), device=handed.device)
        for name, count in numel.items()
    }


def _allocate_for_one_parameter(rule: Rule, interval: Interval, handed: Tensor) -> dict[str, Tensor]:
    """State in natural shapes. Elementwise state of a DTensor is there on every rank, be it empty, for the collective calls of
    torch.distributed.checkpoint; factors are only where some of the parameter is."""
    allocated = {}
    for name, kind in kept(rule, interval).items():
        dtype, device = kept_dtype(rule, name, working_dtype(handed)), local(handed).device
        if kind is Kind.STEP:
            allocated[name] = torch.zeros((), dtype=torch.float32)
        elif kind is Kind.LOCAL:
            allocated[name] = torch.zeros_like(handed, dtype=dtype, memory_format=torch.contiguous_format)
        elif kind is Kind.PIECE and is_dtensor(handed):
            allocated[name] = fsdp2.zeros_by_rank(handed)
        elif interval.numel:
            allocated[name] = torch.zeros(_natural_shape(kind, handed), dtype=dtype, device=device)
    return allocated


def views(rule: Rule, shards: Sequence[Shard], handed: Tensor, allocated: dict[str, Any]) -> list[StateViews]:
    """Each shard's part of the allocated state. A shard that holds nothing gets zeros that nobody keeps: its rule runs for the
    sake of the reductions alone. Raises ValueError for scales that were loaded and are of other pieces than these."""
    specs = [rule.state(shard.interval) for shard in shards if shard.interval.numel]
    _refuse_other_pieces(rule, shards, handed, allocated)
    at: dict[str, int] = {}
    found = []
    for shard in shards:
        mine: StateViews = {}
        for name, kind in kept(rule, shard.interval).items():
            shape = state_shape(kind, shard.interval)
            if kind is Kind.STEP:
                mine[name] = allocated[name]  # one count for all shards
            elif shard.interval.numel == 0:
                mine[name] = torch.zeros(shape, dtype=kept_dtype(rule, name, working_dtype(handed)), device=local(handed).device)
            elif kind is Kind.LOCAL and _lies_like_the_weights(name, specs):
                mine[name] = shard.of(allocated[name])
            else:
                start = at.get(name, 0)
                at[name] = start + state_numel(kind, shard.interval)
                mine[name] = local(allocated[name]).view(-1)[start : at[name]].view(shape)
        found.append(mine)
    return found


def update_of_kept(
    rule: Rule,
    interval: Interval,
    param: Tensor,
    grad: Tensor,
    state: StateViews,
    hyper: dict[str, Any],
    observer: Observer,
    number: int,
) -> Coroutine:
    """`rule.update` on the state that is kept: momentum is decoded before it, as the coroutine begins, and encoded when it has ended.

    `number` is the parameter's (`ShardedOptimizer.parameter_numbers`). Of a parameter that is split over ranks the decoded momentum
    lives as long as the step.
    """
    if rule.momentum_dtype == "float32":
        yield from rule.update(interval, param, grad, state, hyper, observer)
        return
    momentum = decode(state, interval).to(param.dtype)
    yield from rule.update(interval, param, grad, {**state, MOMENTUM: momentum}, hyper, observer)
    encode_(state, momentum, interval, Draws(hyper["seed"], int(state["step"]), number))


def _refuse_other_pieces(rule: Rule, shards: Sequence[Shard], handed: Tensor, allocated: dict[str, Any]) -> None:
    if SCALE not in allocated:
        return
    found = tuple(allocated[SCALE].shape)
    wanted = fsdp2.by_rank_shape(handed) if is_dtensor(handed) else (sum(state_numel(Kind.PIECE, shard.interval) for shard in shards),)
    if found != wanted:
        raise ValueError(
            f"the state that was loaded has {SCALE} of {found}, and {wanted} is needed here: it was cut otherwise; "
            "came.checkpoint saves and loads momentum in 8 bits on any number of ranks"
        )


def _lies_like_the_weights(name: str, specs: Sequence[dict[str, Kind]]) -> bool:
    return all(name in spec for spec in specs)


def _natural_shape(kind: Kind, param: Tensor) -> tuple[int, ...]:
    match kind:
        case Kind.ROW:
            return tuple(param.shape[:-1])
        case Kind.COL:
            return (*param.shape[:-2], param.shape[-1])
        case Kind.PIECE:
            return state_shape(kind, Interval.whole(tuple(param.shape)))
        case _:
            return tuple(param.shape)
