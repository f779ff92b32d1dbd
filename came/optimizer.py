"""The optimizer that runs a rule wherever the parameters live.

`ShardedOptimizer` is an ordinary `torch.optim.Optimizer`. It remembers the model's parameters when it is built; at the first
`step()` it finds out what it is now handed (the parameters themselves, or DeepSpeed's flat tensors), maps that back to intervals of
the parameters, checks the mapping against the model's weights, and from then on runs its rule over the intervals.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from came import layouts, lockstep
from came.interval import Interval
from came.layouts import Layout, LayoutError, Shard, local
from came.rules import Kind, Rule
from came.state import StateViews, allocate, views

logger = logging.getLogger("came")

_ORIGIN = "came_group"
"""Key stamped into each parameter group: its index at construction. DeepSpeed slices and copies groups, the stamp survives."""


@dataclass
class Place:
    """A handed tensor, found: its layout and shards. Holds the tensor, so that its identity stays its own."""

    handed: Tensor
    layout: Layout
    shards: list[Shard]
    agreed: bool = False
    """Whether every rank that shares the tensor is known to have found its own."""


@dataclass
class UpdateStatistics:
    """What was seen of the update directions: their sum of squares (a device scalar) and element count on this rank."""

    sum_of_squares: Tensor | None = None
    numel: int = 0

    def observe(self, direction: Tensor) -> None:
        square = direction.square().sum()
        self.sum_of_squares = square if self.sum_of_squares is None else self.sum_of_squares + square
        self.numel += direction.numel()


class ShardedOptimizer(torch.optim.Optimizer):
    """Runs one rule, exactly, on unsharded parameters and under DeepSpeed ZeRO stages 0-3.

    Subclasses set `rule` and give its hyper-parameters. State is float32 whatever the parameters' dtype. Raises
    `came.layouts.LayoutError` at the first step if a parameter's elements cannot be located with certainty.

    Attributes:
        traffic: collective calls and bytes of the last `step()`.
        update_statistics: None, or what the updates are to be added up in; see `update_rms`.
    """

    rule: Rule

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self._params: list[list[Tensor]] = []
        self._places: dict[int, Place] = {}
        self.traffic = lockstep.Traffic()
        self.update_statistics: UpdateStatistics | None = None
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group[_ORIGIN] = len(self._params)
        self._params.append(list(group["params"]))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but float32 state stays float32: torch casts it to the parameter's dtype, and an average with decay 0.9999 that
        is kept in bfloat16 never moves again."""
        super().load_state_dict(state_dict)
        indices = [index for group in state_dict["param_groups"] for index in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        for index, param in zip(indices, params, strict=True):
            for name, value in state_dict["state"].get(index, {}).items():
                device = value.device if name == "step" else param.device
                self.state[param][name] = value.detach().to(device=device, dtype=torch.float32, copy=True)

    # Where things are ---------------------------------------------------------------------------------------------------------

    def places(self) -> Iterator[Place]:
        """Every tensor that this rank updates, with what it holds; needs the engine to have been built, but no step."""
        for group in self.param_groups:
            params = self._params[group[_ORIGIN]]
            for handed in layouts.layout_of(group["params"], params).handed(group["params"], params):
                yield self._place(handed, group)

    def state_views(self, place: Place) -> list[StateViews]:
        """The state of each shard of a place, allocated as zeros where there is none yet."""
        if not self.state[place.handed]:
            self.state[place.handed] = allocate(self.rule, place.shards, place.handed)
        return views(self.rule, place.shards, place.handed, self.state[place.handed])

    def state_bytes(self) -> int:
        """Bytes of optimizer state that this rank keeps now."""
        return sum(
            local(value).numel() * value.element_size()
            for state in self.state.values()
            for value in state.values()
            if torch.is_tensor(value)
        )

    def _place(self, handed: Tensor, group: dict[str, Any]) -> Place:
        key = id(handed)
        if key not in self._places:
            first = not self._places
            params = self._params[group[_ORIGIN]]
            layout = layouts.layout_of(group["params"], params)
            place = Place(handed, layout, layout.locate(handed, group["params"], params))
            layouts.verify(layout, handed, place.shards)
            self._places[key] = place
            if first:
                logger.info(self.describe())
        return self._places[key]

    def _locate_together(self) -> None:
        """Locate what a step meets for the first time. Where one rank cannot, all that share the tensors raise: none is left waiting."""
        for group in self.param_groups:
            tensors = [handed for handed in group["params"] if handed.grad is not None]
            new = [handed for handed in tensors if id(handed) not in self._places or not self._places[id(handed)].agreed]
            if not new:
                continue
            params = self._params[group[_ORIGIN]]
            layout, failure = layouts.layout_of(group["params"], params), None
            try:
                for handed in new:
                    self._place(handed, group)
            except LayoutError as error:
                failure = error
            found_everywhere = [lockstep.all_agree(failure is None, sharing) for sharing in layout.groups(params)]
            if failure is not None:
                raise failure
            if not all(found_everywhere):
                raise LayoutError(f"{layout.name}: another rank could not locate its part of the parameters; its error says why")
            for handed in new:
                self._places[id(handed)].agreed = True

    def describe(self) -> str:
        """The layout that was found and how many parameters are factored, in one line."""
        layout = next(iter(self._places.values())).layout
        shapes = [getattr(param, "ds_shape", param.shape) for params in self._params for param in params if param.requires_grad]
        kinds = [self.rule.state(Interval.whole(shape)).values() for shape in shapes if prod(shape)]
        factored = sum(Kind.ROW in found for found in kinds)
        return f"{self.rule.name}: {layout.name}, {factored} of {len(kinds)} parameters factored"

    # The step -----------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient. Returns the closure's loss, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._locate_together()
        self.traffic = lockstep.Traffic()
        observe = self.update_statistics.observe if self.update_statistics is not None else lambda direction: None
        lockstep.run(self._jobs(), self.traffic, observe)
        return loss

    def _jobs(self) -> Iterator[lockstep.Job]:
        for group in self.param_groups:
            for handed in group["params"]:
                if handed.grad is None:
                    continue
                place = self._place(handed, group)
                if not self.state[handed] and _is_initialisation(place):
                    continue
                all_views = self.state_views(place)
                if "step" in self.state[handed]:
                    self.state[handed]["step"] += 1
                weights, grad = handed.detach(), _scratch_gradient(place)
                for shard, state in zip(place.shards, all_views, strict=True):
                    yield lockstep.Job(self.rule.update(shard.interval, shard.of(weights), shard.of(grad), state, group), shard.group)

    def update_rms(self) -> float:
        """Root mean square, over all parameters and ranks, of the update directions (before the learning rate) in
        `update_statistics`; 0 where there were none. A collective call under ZeRO; it waits for the device."""
        updates = self.update_statistics or UpdateStatistics()
        totals = torch.tensor([float(updates.sum_of_squares or 0.0), float(updates.numel)], dtype=torch.float64)
        places = list(self._places.values())
        if any(place.layout.partitioned for place in places):
            totals = lockstep.all_reduce(totals, dist.ReduceOp.SUM, None)
        sum_of_squares, numel = totals.tolist()
        return (sum_of_squares / max(numel, 1.0)) ** 0.5


def _is_initialisation(place: Place) -> bool:
    """DeepSpeed's stage 0 in bf16 and fp16 calls `step()` once while it is being built, with zero gradients: not an update."""
    copies = not place.layout.partitioned and all(shard.param is not place.handed for shard in place.shards)
    return copies and not place.handed.grad.any()


def _scratch_gradient(place: Place) -> Tensor:
    """This rank's gradient in float32, flat, free to be overwritten: ZeRO's own flat gradient is, the user's is not."""
    grad = local(place.handed.grad)
    if grad.is_sparse:
        raise RuntimeError("sparse gradients are not supported; build the embedding with sparse=False")
    flat = grad.reshape(-1).float()
    return flat.clone() if flat.data_ptr() == grad.data_ptr() and not place.layout.lends_gradients else flat
