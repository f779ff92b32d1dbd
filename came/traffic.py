"""What an optimizer's reductions are going to send, counted by running its rule: there is no formula that could drift. (CAME's fused step
has a short one.)

A rank that holds nothing of a parameter runs the rule like the others, on no elements, so that collectives match. So does the count.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from came import lockstep
from came.interval import Interval
from came.layouts.foretold import Shape, split
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


@torch.no_grad()
def reductions(rule: Rule, calls: Sequence[Sequence[Group]], world_size: int, stage: int | str) -> Traffic:
    """Collective calls and bytes of the packed buffers of one update, on every rank the same: what `ShardedOptimizer.traffic` counts.

    Args:
        rule: the optimizer's `rule`.
        calls: for each call of `step()` the groups that it updates: under DeepSpeed one call for each group, but one for all with
            BF16_Optimizer (ZeRO-1 in bf16), and one for each sub-group (`came.layouts.foretold.sub_groups`) at ZeRO-3.
        world_size: ranks that share the parameters.
        stage: ZeRO stage 0 to 3, or "fsdp2".
    """
    traffic = Traffic()
    for groups in calls:
        lockstep.run(_jobs(rule, groups, world_size, stage), traffic, lambda tensor, op, group: tensor)
    return traffic


def fused_reductions(calls: Sequence[Sequence[Group]], world_size: int, stage: int | str) -> Traffic:
    """The same of CAME's fused step (`came.kernels`): the sums over rows and columns of the squared gradient in float32; those of the
    residual, of which there are three, and a clipping sum for each parameter, in float64."""
    traffic = Traffic()
    for groups in calls:
        shapes = [shape for group in groups for shape in split(group.shapes, world_size, stage)]
        sums = sum(prod(shape[:-2]) * (shape[-2] + shape[-1]) for shape in shapes if len(shape) >= 2)
        packs = [4 * sums, 8 * (3 * sums + len(shapes))]
        traffic.calls += len(list(filter(None, packs)))
        traffic.num_bytes += sum(packs)
    return traffic


def _jobs(rule: Rule, groups: Sequence[Group], world_size: int, stage: int | str) -> Iterator[Job]:
    for group in groups:
        for shape in split(group.shapes, world_size, stage):
            yield Job(_update_of_nothing(rule, Interval(shape, 0, 0), group.hyper), _SHARED)


def _update_of_nothing(rule: Rule, interval: Interval, hyper: dict[str, Any]) -> lockstep.Coroutine:
    kinds = rule.state(interval).items()
    state = {name: torch.ones(()) if kind is Kind.STEP else torch.zeros(state_shape(kind, interval)) for name, kind in kinds}
    return rule.update(interval, torch.zeros(0), torch.zeros(0), state, {**hyper, "lr": float(hyper["lr"])}, Observer())
