"""Ranks without processes: each has its plan, and what the plans yield to be reduced is added up between them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from came.interval import Interval, overlap
from came.layouts import Shard, zero3
from came.momentum import SCALE, decode, encode_
from came.optimizer import Place
from came.reference import Reference, came_step
from came.rules.came import RULE
from came.state import allocate, views
from tests.unit.kernels.running import DEVICE

SHAPES = [(21, 33), (5, 3), (40,), (2, 3, 5), (1, 2, 2, 3), (), (24, 32)]
"""Odd shapes, stacks and one whose rows are aligned; in tiles of 16 x 32 most need several."""

WITH_BLOCKS = [(2, 256), (12, 33), (300,), (3, 5, 20), (2, 1, 2, 3), (2, 400), (), (9, 1)]
"""Shapes of which 8-bit momentum's blocks end with the rows, within them, and beyond a matrix."""

HYPER = dict(
    lr=1e-2,
    weight_decay=0.01,
    betas=(0.9, 0.999, 0.9999),
    eps=(1e-30, 1e-16),
    clip_threshold=1.0,
    bias_correction=False,
    maximize=False,
    seed=7,
)
NO_DECAY = HYPER | dict(weight_decay=0.0, lr=3e-3)


@dataclass(frozen=True)
class Dtypes:
    weight: torch.dtype = torch.float32
    gradient: torch.dtype = torch.float32
    momentum: str = "float32"


def small(block_cols: int = 32) -> Any:
    """Tiles that cut small matrices in several."""
    from came.kernels.tables import Geometry

    return Geometry(strip_rows=16, block_rows=16, few_block_rows=8, block_cols=block_cols, part=32)


Held = list[tuple[Interval, bool]]
"""One rank's interval of each parameter, and whether others hold the rest."""


def cut(shapes: Sequence[tuple[int, ...]], world_size: int) -> Iterator[Held]:
    """What each rank holds of one flat buffer that is cut into slices."""
    total = sum(map(prod, shapes))
    bounds = [total * rank // world_size for rank in range(world_size + 1)]
    for low, high in zip(bounds, bounds[1:], strict=False):
        at, found = 0, []
        for shape in shapes:
            start, stop = overlap(low, high, at, at + prod(shape))
            whole = stop - start == prod(shape)
            interval = Interval(shape, start - at, stop - at) if start < stop else Interval(shape, 0, 0)
            found.append((interval, not whole))
            at += prod(shape)
        yield found


def cut_each(shapes: Sequence[tuple[int, ...]], world_size: int) -> Iterator[Held]:
    """What each rank holds where every parameter is cut by itself, as at ZeRO-3: the last ranks may have nothing but padding."""
    for rank in range(world_size):
        found = (zero3.shard_of(shape, prod(shape), -(-prod(shape) // world_size), rank) for shape in shapes)
        yield [mine or (Interval(shape, 0, 0), True) for mine, shape in zip(found, shapes, strict=True)]


class Rank:
    """One rank's slices, which end in padding: matrices in one group, vectors in another."""

    def __init__(self, weights: Sequence[Tensor], held: Held, split_with: list[bool], dtypes: Dtypes, geometry: Any) -> None:
        self.dtypes, self.held, self.rule = dtypes, held, replace(RULE, momentum_dtype=dtypes.momentum)
        self.places, self.states, self.groups = [], [], []
        for vectors, hyper in ((False, dict(HYPER)), (True, dict(NO_DECAY))):
            mine = [index for index, weight in enumerate(weights) if (weight.dim() < 2) == vectors]
            if not mine:
                continue
            parts = [weights[index].flatten()[held[index][0].start : held[index][0].stop] for index in mine]
            flat = torch.cat([*parts, torch.zeros(1)]).to(dtypes.weight).to(DEVICE)
            shards, at = [], 0
            for index in mine:
                interval = held[index][0]
                if interval.numel or split_with[index]:
                    shards.append(Shard(index, interval, at, "ranks" if split_with[index] else None))
                at += interval.numel
            self.places.append(Place(flat, None, shards))
            self.states.append(allocate(self.rule, shards, flat))
            self.groups.append(hyper)
        self._plan, self.geometry = None, geometry

    def take(self, oracle: "Oracle") -> None:
        """Begin with the oracle's state, which float32 holds exactly; momentum rounded to the nearest."""
        for place in self.places:
            for shard, state in zip(place.shards, self.views_of(place), strict=True):
                of_parameter = oracle.references[shard.param].states[0]
                for name, kept in state.items():
                    wanted = torch.as_tensor(of_parameter.get(name, 0.0)).flatten().float()
                    if name == "exp_avg" and kept.dtype != torch.float32:
                        encode_(state, wanted[shard.interval.start : shard.interval.stop].to(DEVICE), shard.interval, None)
                    elif name in ("exp_avg", "exp_avg_sq"):
                        kept.copy_(wanted[shard.interval.start : shard.interval.stop])
                    elif name != SCALE:
                        kept.copy_(wanted.view(kept.shape))

    def members(self) -> list:
        from came.kernels.plan import Member

        return [
            Member(place, state, group) for place, state, group in zip(self.places, self.states, self.groups, strict=True) if place.shards
        ]

    def launches(self, grads: Sequence[Tensor], poison: float, **options: Any) -> Iterator:
        """One step along whole gradients. What holds nothing between steps is filled with `poison` before it."""
        from came.kernels.plan import Plan

        members = self.members()
        mine = []
        for member in members:
            member.state["step"] += 1
            flat = torch.zeros_like(member.place.handed)
            for shard in member.place.shards:
                shard.of(flat).copy_(grads[shard.param].flatten()[shard.interval.start : shard.interval.stop])
            mine.append(flat.to(self.dtypes.gradient))
        if self._plan is None or not self._plan.fits(members, mine):
            self._plan = Plan(members, mine, self.geometry, self.views_of, {id(index): index for index in range(len(self.held))})
        for batch in self._plan.batches:
            for workspace in batch.workspaces():
                workspace.fill_(poison)
        yield from self._plan.launches(members, mine, **options)

    def views_of(self, place: Place) -> list:
        state = next(state for mine, state in zip(self.places, self.states, strict=True) if mine is place)
        return views(self.rule, place.shards, place.handed, state)

    def piece_of(self, index: int, name: str | None = None) -> Tensor | None:
        """This rank's elements of a parameter, or what it keeps of its state under `name`; None for a parameter that it does not have."""
        for place in self.places:
            for number, shard in enumerate(place.shards):
                if shard.param == index and shard.interval.numel:
                    return shard.of(place.handed) if name is None else self.views_of(place)[number].get(name)
        return None


class Ranks:
    """All ranks of one run."""

    def __init__(
        self, weights: Sequence[Tensor], world_size: int = 1, dtypes: Dtypes = Dtypes(), geometry: Any = None, cutting: Any = cut
    ) -> None:
        shapes = [tuple(weight.shape) for weight in weights]
        held = list(cutting(shapes, world_size))
        split = [not any(not of_rank[index][1] for of_rank in held) for index in range(len(shapes))]
        self.shapes, self.ranks = shapes, [Rank(weights, of_rank, split, dtypes, geometry or small()) for of_rank in held]

    def take(self, oracle: "Oracle") -> None:
        for rank in self.ranks:
            rank.take(oracle)

    def step(self, grads: Sequence[Tensor], poison: float = float("nan"), **options: Any) -> None:
        for yielded in zip(*(rank.launches(grads, poison, **options) for rank in self.ranks), strict=True):
            if yielded[0] is not None:
                for packs in zip(*yielded, strict=True):
                    total = torch.stack([pack for _, pack in packs]).sum(0)
                    for _, pack in packs:
                        pack.copy_(total)

    def whole(self, index: int, name: str | None = None) -> Tensor:
        """A parameter, or an elementwise state of it, from the ranks' pieces."""
        pieces = [piece for rank in self.ranks if (piece := rank.piece_of(index, name)) is not None]
        return torch.cat([piece.flatten() for piece in pieces]).view(self.shapes[index]).cpu()

    def shards(self) -> Iterator[tuple[Shard, dict, Tensor]]:
        """Every shard of every rank, with its state and its weights."""
        for rank in self.ranks:
            for place in rank.places:
                for shard, state in zip(place.shards, rank.views_of(place), strict=True):
                    if shard.interval.numel:
                        yield shard, state, shard.of(place.handed)

    def momentum(self, index: int) -> Tensor:
        """A parameter's momentum, decoded."""
        mine = [(shard, state) for shard, state, _ in self.shards() if shard.param == index]
        pieces = [decode(state, shard.interval) if SCALE in state else state["exp_avg"].float() for shard, state in mine]
        return torch.cat(pieces).view(self.shapes[index]).cpu()

    def factor(self, index: int, name: str) -> Tensor:
        """Row or column factors of a parameter, which are the same on every rank that has some of it."""
        pieces = [piece for rank in self.ranks if (piece := rank.piece_of(index, name)) is not None]
        assert all(torch.equal(piece, pieces[0]) for piece in pieces)
        return pieces[0].cpu()


def draw(shapes: Sequence[tuple[int, ...]], seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Tensors whose sizes differ from each other, rounded to a dtype and given in float32."""
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(shape, generator=generator) * (1 + index)).to(dtype).float() for index, shape in enumerate(shapes)]


class Oracle:
    """The published algorithm in double precision on whole tensors, in the same two groups."""

    def __init__(self, weights: Sequence[Tensor], **hyper: Any) -> None:
        options = {name: HYPER[name] for name in ("betas", "eps", "clip_threshold", "bias_correction")} | hyper
        of_kind = {"matrix": dict(lr=HYPER["lr"], weight_decay=HYPER["weight_decay"]), "vector": dict(lr=NO_DECAY["lr"])}
        self.references = [
            Reference([weight.double()], came_step, **(of_kind["vector" if weight.dim() < 2 else "matrix"] | options)) for weight in weights
        ]

    def step(self, grads: Sequence[Tensor]) -> None:
        for reference, grad in zip(self.references, grads, strict=True):
            reference.step([grad.double()])

    def round(self) -> None:
        """To what float32 holds, weights and state."""
        for reference in self.references:
            reference.params = [param.float().double() for param in reference.params]
            state = reference.states[0]
            state |= {name: value.float().double() for name, value in state.items() if torch.is_tensor(value)}

    def __getitem__(self, index: int) -> Tensor:
        return self.references[index].params[0]

    def state(self, index: int, name: str) -> Tensor:
        return self.references[index].states[0][name]


def error(found: Tensor, wanted: Tensor) -> float:
    """The largest difference over the largest value."""
    return float((found.double() - wanted.double()).abs().max() / wanted.double().abs().max())
