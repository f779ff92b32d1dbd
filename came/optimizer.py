"""The optimizer that runs a rule wherever the parameters live.

`ShardedOptimizer` is an ordinary `torch.optim.Optimizer`. It remembers the model's parameters when it is built; at the first
`step()` it finds out what it is now handed (the parameters themselves, or DeepSpeed's flat tensors), maps that back to intervals of
the parameters, checks the mapping against the model's weights, and from then on runs its rule over the intervals.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from came import layouts, lockstep
from came.interval import Interval
from came.layouts import Layout, LayoutError, Shard, local
from came.momentum import MOMENTUM, same_code
from came.observation import Observer, UpdateStatistics
from came.rules import Kind, Rule
from came.state import StateViews, allocate, kept_dtype, update_of_kept, views, working_dtype

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

    @property
    def gradient(self) -> Tensor:
        """This rank's part of the gradient, as it is."""
        assert self.handed.grad is not None
        return local(self.handed.grad)


class Entry(NamedTuple):
    """A handed tensor that takes part in a step, and the parameter group that it is in."""

    place: Place
    group: dict[str, Any]


class ShardedOptimizer(torch.optim.Optimizer):
    """Runs one rule, exactly, on unsharded parameters, under DeepSpeed ZeRO stages 0-3 and under FSDP2.

    Subclasses set `rule` and give its hyper-parameters. State and arithmetic are float32 (float64 for float64 parameters), but for
    momentum that is kept in less (`came.momentum`), decoded before the rule and encoded after it. A parameter in bfloat16 is updated in
    float32 and rounded, so that steps smaller than its resolution are lost unless somebody keeps float32 masters, as DeepSpeed does.
    Raises `came.layouts.LayoutError` at the first step if a parameter's elements cannot be located with certainty.

    Attributes:
        traffic: collective calls and bytes of the last `step()`.
        update_statistics: None, or what the updates are to be added up in; see `statistics`.
    """

    rule: Rule

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self._params: list[list[Tensor]] = []
        self._places: dict[int, Place] = {}
        self.traffic = lockstep.Traffic()
        self.update_statistics: UpdateStatistics | None = None
        super().__init__(params, {"maximize": False, **defaults})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; raises ValueError for a hyper-parameter out of its range and for complex parameters."""
        self.rule.check({**self.defaults, **param_group})
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if any(param.is_complex() for param in group["params"]):
            self.param_groups.pop()
            raise ValueError(f"{self.rule.name} takes real parameters; view complex ones as real: torch.view_as_real")
        group[_ORIGIN] = len(self._params)
        self._params.append(list(group["params"]))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but float32 state stays float32: torch casts it to the parameter's dtype, and an average with decay 0.9999 that
        is kept in bfloat16 never moves again. Momentum keeps its dtype likewise; raises ValueError for momentum of another."""
        self._refuse_other_momentum(state_dict)
        origins = [group[_ORIGIN] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, origin in zip(self.param_groups, origins, strict=True):
            group.update({name: value for name, value in self.defaults.items() if name not in group}, **{_ORIGIN: origin})
        indices = [index for group in state_dict["param_groups"] for index in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        for index, param in zip(indices, params, strict=True):
            for name, value in state_dict["state"].get(index, {}).items():
                device = value.device if name == "step" else param.device
                dtype = kept_dtype(self.rule, name, working_dtype(param))
                self.state[param][name] = value.detach().to(device=device, dtype=dtype, copy=True)

    def _refuse_other_momentum(self, state_dict: dict[str, Any]) -> None:
        for state in state_dict["state"].values():
            found, wanted = state.get(MOMENTUM), kept_dtype(self.rule, MOMENTUM)
            if found is not None and not same_code(found.dtype, wanted):
                raise ValueError(
                    f"the state has its momentum in {found.dtype}, and this optimizer keeps it in {wanted}; "
                    "make the optimizer with the momentum_dtype that the state was made with"
                )

    def __getstate__(self) -> dict[str, Any]:
        """For pickling and copying: what the parameters are is kept, where they are is found again."""
        return {**super().__getstate__(), "rule": self.rule, "_params": self._params}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_places", {})
        self.__dict__.setdefault("traffic", lockstep.Traffic())
        self.__dict__.setdefault("update_statistics", None)

    # Where things are ---------------------------------------------------------------------------------------------------------

    def places(self) -> Iterator[Place]:
        """Every tensor that this rank updates, with what it holds; needs the engine to have been built, but no step."""
        for group in self.param_groups:
            params = self._params[group[_ORIGIN]]
            for handed in layouts.layout_of(group["params"], params).handed(group["params"], params):
                yield self._place(handed, group)

    def layouts(self) -> Iterator[Layout]:
        """The layout that each parameter group is in by now."""
        for group in self.param_groups:
            yield layouts.layout_of(group["params"], self._params[group[_ORIGIN]])

    def state_views(self, place: Place) -> list[StateViews]:
        """The state of each shard of a place, allocated as zeros where there is none yet."""
        if not self.state[place.handed]:
            self.state[place.handed] = allocate(self.rule, place.shards, place.handed)
        return views(self.rule, place.shards, place.handed, self.state[place.handed])

    def parameter_numbers(self) -> dict[int, int]:
        """The number, by `id`, of each model parameter in the order of the groups: the same on every rank and at every layout."""
        return {id(param): number for number, param in enumerate(chain.from_iterable(self._params))}

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
        momentum = "" if self.rule.momentum_dtype == "float32" else f", momentum in {self.rule.momentum_dtype}"
        return f"{self.rule.name}: {layout.name}, {factored} of {len(kinds)} parameters factored{momentum}"

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
        entries = list(self._entries())
        steps = [self.state[entry.place.handed]["step"] for entry in entries if "step" in self.state[entry.place.handed]]
        if steps:
            torch._foreach_add_(steps, 1)
        self._update(entries)
        return loss

    def gradient_scale(self) -> Tensor | None:
        """What all gradients of this step are multiplied by; None for 1."""
        return None

    def scale_to_norm(self, limit: float | None) -> Tensor | None:
        """What brings the norm of all gradients down to `limit`, a scalar; None for no limit. Raises LayoutError for sharded ones."""
        params = [param for group in self.param_groups for param in group["params"] if param.grad is not None]
        if limit is None or not params:
            return None
        self.refuse_sharded_clipping()
        squares = [flat_gradient(param).square().sum().to(params[0].device) for param in params]
        return clip_scale(torch.stack(squares).sum().sqrt(), limit)

    def refuse_sharded_clipping(self) -> None:
        """Raises LayoutError where the norm of all gradients is not to be had."""
        if any(place.layout.partitioned for place in self._places.values()):
            raise LayoutError(
                f"{self.rule.name}(max_grad_norm=...) needs the norm of all gradients, and of sharded parameters it sees a part at a time; "
                'leave it out and clip where all are known: DeepSpeed\'s "gradient_clipping", torch.nn.utils.clip_grad_norm_'
            )

    def _entries(self) -> Iterator[Entry]:
        """What this step updates: every handed tensor that has a gradient, with its state allocated."""
        for group in self.param_groups:
            for handed in group["params"]:
                if handed.grad is None:
                    continue
                place = self._place(handed, group)
                if not self.state[handed]:
                    if _is_initialisation(place):
                        continue
                    self.state[handed] = allocate(self.rule, place.shards, handed)
                yield Entry(place, group)

    def shapes_in(self, entry: Entry) -> list[Sequence[int]]:
        """Of the parameters that an entry holds, or, where they are sharded, of all that any rank's may hold: those of its group."""
        if not entry.place.layout.partitioned:
            return [shard.interval.shape for shard in entry.place.shards]
        return [getattr(param, "ds_shape", param.shape) for param in self._params[entry.group[_ORIGIN]]]

    def sharing(self, entry: Entry) -> list[Any]:
        """Process groups whose ranks share parameters of the entry's group; the same order on every rank."""
        return entry.place.layout.groups(self._params[entry.group[_ORIGIN]])

    def _update(self, entries: Sequence[Entry]) -> None:
        """One update, by the rule; an optimizer that has a faster way to make the same one overrides this."""
        lockstep.run(self._jobs(entries, self.gradient_scale()), self.traffic)

    def _jobs(self, entries: Sequence[Entry], scale: Tensor | None) -> Iterator[lockstep.Job]:
        observer = self.update_statistics or Observer()
        numbers = self.parameter_numbers()
        hypers = hyper_parameters(entries)
        for entry in entries:
            place, group, hyper = entry.place, entry.group, hypers[id(entry.group)]
            weights, grad = flat(place.handed.detach()), flat_gradient(place.handed)
            if scale is not None or group["maximize"]:
                grad = grad * ((1.0 if scale is None else scale.to(grad.device)) * (-1.0 if group["maximize"] else 1.0))
            for shard, state in zip(place.shards, self.state_views(place), strict=True):
                tensors = shard.of(weights), shard.of(grad), state
                update = update_of_kept(self.rule, shard.interval, *tensors, hyper, observer, numbers[id(shard.param)])
                yield lockstep.Job(_finish(update, place.handed, weights), shard.group)

    def statistics(self) -> dict[str, float]:
        """What `update_statistics` saw of the last step, over all parameters and ranks; exact however they are sharded.

        `update_rms`: root mean square of the update directions, before the learning rate; 0 where there were none. `clip_share`, of
        CAME and Adafactor: the share of the parameters whose update was divided for its RMS, those above `clip_threshold`.
        `confidence_mean` and `confidence_std`, of CAME: mean and standard deviation over the matrices of `1 / sqrt(mean of S)`, where
        `S = r c / mean(r)` is the averaged instability of Algorithm 2, lines 8-11, and `1 / sqrt(S)` is what multiplies the momentum
        (with `bias_correction`, `S` stands for `(1 - beta1^t)^2 / (1 - beta3^t) S`, which does). A stack of matrices counts as so many.
        The mean over a matrix's elements is one of S and not of `1 / sqrt(S)`: rows that never have a gradient, such as those of
        positions beyond the sequence length, have some 1e8 there and would drown all others.

        A collective call under ZeRO; it waits for the device.
        """
        return (self.update_statistics or UpdateStatistics()).read(any(place.layout.partitioned for place in self._places.values()))


def hyper_parameters(entries: Sequence[Entry]) -> dict[int, dict[str, Any]]:
    """Of each group that the entries are in, by its `id`; a learning rate that is a tensor is read, for which the host waits on a GPU."""
    groups = {id(entry.group): entry.group for entry in entries}
    return {key: {**group, "lr": float(group["lr"])} for key, group in groups.items()}


def clip_scale(norm: Tensor, limit: float) -> Tensor:
    """What brings gradients of this norm down to `limit`."""
    return (limit / norm).clamp(max=1.0)


def _finish(update: lockstep.Coroutine, handed: Tensor, weights: Tensor) -> lockstep.Coroutine:
    """The update; then weights that were updated in a copy go back to where they belong."""
    yield from update
    theirs = local(handed.detach())
    if weights.data_ptr() != theirs.data_ptr():
        theirs.copy_(weights.view(theirs.shape))


def _is_initialisation(place: Place) -> bool:
    """DeepSpeed's stage 0 in bf16 and fp16 calls `step()` once while it is being built, with zero gradients: not an update."""
    copies = not place.layout.partitioned and all(shard.param is not place.handed for shard in place.shards)
    return copies and place.handed.grad is not None and not place.handed.grad.any()


def flat(values: Tensor) -> Tensor:
    """This rank's values in row-major order as the rules want them, (numel,) and float32 or float64: a view where they lie so, else a
    copy."""
    return local(values).reshape(-1).to(working_dtype(values))


def flat_gradient(handed: Tensor) -> Tensor:
    """The gradient of a handed tensor, likewise. Raises RuntimeError for a sparse one."""
    assert handed.grad is not None
    if handed.grad.is_sparse:
        raise RuntimeError("sparse gradients are not supported; build the embedding with sparse=False")
    return flat(handed.grad)
