"""Which weights ZeRO-3 gathers in one forward and backward pass, and how many it holds at a time: DeepSpeed's coordinator, played through.

It fetches what a module needs, fetches ahead up to `stage3_prefetch_bucket_size` elements, and lets go of a module's weights unless they
are used again within `stage3_max_reuse_distance` elements or were passed over, being there already, by what was fetched ahead.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from pretrain.plan.deepspeed import Zero
from pretrain.plan.sizes import Module, Sizes


@dataclass(frozen=True)
class Gathering:
    """Of one micro-step, once the order of modules is known (from the second micro-step on)."""

    gathered: tuple[int, ...]
    """Places of the gathered parameters in `Sizes.numels`; one that is gathered twice is listed twice."""
    most_elements: int
    """Most elements that are gathered at one time."""


def persistent(sizes: Sizes, zero: Zero) -> frozenset[int]:
    """Places of the parameters that are too small to be cut: every rank keeps them whole, and gathers them after each update."""
    found, total = set(), 0
    for place, numel in enumerate(sizes.numels):
        if numel <= zero.stage3_param_persistence_threshold and total + numel <= zero.stage3_model_persistence_threshold:
            found.add(place)
            total += numel
    return frozenset(found)


def gathering(sizes: Sizes, zero: Zero, recompute: bool) -> Gathering:
    """One micro-step; with `recompute` (activation checkpointing) each layer's forward pass is run again before its backward pass."""
    kept = persistent(sizes, zero)
    steps = [*sizes.forward, *(sizes.recomputing if recompute else sizes.backward)]
    queue = deque((param, step) for step, module in enumerate(steps) for param in sorted(module))
    fetched_for = dict.fromkeys(range(len(sizes.numels)), -1)
    there: set[int] = set()
    gathered: list[int] = []
    most = 0

    def gather(params: list[int]) -> None:
        there.update(params)
        gathered.extend(params)

    for step, module in enumerate(steps):
        gather([param for param in module if param not in there | kept])
        for _ in [param for param in module if fetched_for[param] < step]:
            param, used_at = queue.popleft()
            fetched_for[param] = used_at
        room = min(zero.stage3_max_live_parameters - sum(sizes.numels[param] for param in there), zero.stage3_prefetch_bucket_size)
        ahead: list[int] = []
        while queue and sum(sizes.numels[param] for param in ahead) < room:
            param, used_at = queue.popleft()
            fetched_for[param] = max(fetched_for[param], used_at)
            if param not in there | kept and param not in ahead:
                ahead.append(param)
        gather(ahead)
        most = max(most, sum(sizes.numels[param] for param in there))
        soon = _used_soon(steps[step + 1 :], sizes, zero.stage3_max_reuse_distance)
        there -= {param for param in module if param not in soon and fetched_for[param] <= step + 1}
    return Gathering(tuple(gathered), most)


def _used_soon(steps: Sequence[Module], sizes: Sizes, distance: int) -> set[int]:
    found: set[int] = set()
    passed = 0
    for module in steps:
        if passed >= distance:
            break
        found.update(module)
        passed += sum(sizes.numels[param] for param in module)
    return found
