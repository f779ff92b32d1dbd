"""What an optimizer's reductions are going to send, counted by running its rule on tensors that have no storage: nothing can drift."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from came import lockstep
from came.interval import Interval
from came.layouts.foretold import Shape, handed
from came.lockstep import Job, Traffic
from came.observation import Observer
from came.rules import Kind, Rule, state_shape

_SHARED = object()
"""Stands for the process group of the ranks that share the parameters."""


@dataclass(frozen=True)
class Group:
    """A parameter group (at ZeRO-3 a sub-group) before it is sharded: hyper-parameters, and shapes in the optimizer's order."""

    hyper: dict[str, Any]
    shapes: Sequence[Shape]


def reductions(rule: Rule, calls: Sequence[Sequence[Group]], world_size: int, stage: int | str) -> Traffic:
    """Collective calls and bytes of the packed buffers of one update, on every rank the same: what `ShardedOptimizer.traffic` counts.

    Args:
        rule: the optimizer's `rule`.
        calls: for each call of `step()` the groups that it updates: under DeepSpeed one call for each group, but one for all with
            BF16_Optimizer (ZeRO-1 in bf16), and one for each sub-group at ZeRO-3.
        world_size: ranks that share the parameters.
        stage: ZeRO stage 0 to 3, or "fsdp2".
    """
    traffic = Traffic()
    for groups in calls:
        lockstep.run(_jobs(rule, groups, world_size, stage), traffic, lambda tensor, op, group: tensor)
    return traffic


def _jobs(rule: Rule, groups: Sequence[Group], world_size: int, stage: int | str) -> Iterator[Job]:
    """Of the first rank; one that holds nothing of a parameter takes part in its reductions alike."""
    for group in groups:
        for tensor in handed(group.shapes, world_size, stage, 0):
            for interval, split in zip(tensor.intervals, tensor.split, strict=True):
                if split:
                    yield Job(_update(rule, interval, group.hyper), _SHARED)


def _update(rule: Rule, interval: Interval, hyper: dict[str, Any]) -> lockstep.Coroutine:
    values = torch.empty(interval.numel, device="meta")
    state = {
        name: torch.ones(()) if kind is Kind.STEP else torch.empty(state_shape(kind, interval), device="meta")
        for name, kind in rule.state(interval).items()
    }
    return rule.update(interval, values, values.clone(), state, {**hyper, "lr": float(hyper["lr"])}, Observer())
