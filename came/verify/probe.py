"""The linear probe: a model whose gradients are known and do not depend on its weights, so that it tests the optimizer alone.

The loss is <w, G> with G drawn from (step, micro-step, rank). The shapes are odd: whatever the number of ranks, cuts fall in the
middle of rows, on vectors, and inside tensors of three and four dimensions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import came
from came import reference
from came.optimizer import ShardedOptimizer
from came.reference import Reference

SHAPES = [(61, 30), (17,), (3, 30, 13), (7, 101), (1, 5), (101, 7), (2, 3, 5, 7), (33,), (128, 3)]
FSDP2 = "fsdp2"


@dataclass(frozen=True)
class Contender:
    """An optimizer, its whole-tensor algorithm, and hyper-parameters with which twenty steps move the probe by about a twentieth: much
    less, and the rounding of the weights themselves would show in the updates."""

    make: type[ShardedOptimizer]
    algorithm: Callable[..., None]
    hyper: dict[str, Any]


OPTIMIZERS = {
    "came": Contender(came.CAME, reference.came_step, {"lr": 2e-4, "weight_decay": 0.01}),
    "adamw": Contender(came.AdamW, reference.adamw_step, {"lr": 2e-4, "weight_decay": 0.01}),
    "lamb": Contender(came.LAMB, reference.lamb_step, {"lr": 2e-3, "weight_decay": 0.01}),
    "adafactor": Contender(came.Adafactor, reference.adafactor_step, {"lr": 1e-2, "weight_decay": 0.01}),
    "sm3": Contender(came.SM3, reference.sm3_step, {"lr": 1e-2, "weight_decay": 0.01}),
}

_EVERY_VARIANT = {"bias_correction": True, "cautious": True, "trust_ratio": True}
VARIANTS = {
    "came_variants": Contender(came.CAME, reference.came_step, {"lr": 2e-3, "weight_decay": 0.01, **_EVERY_VARIANT}),
    "adafactor_momentum": Contender(came.Adafactor, reference.adafactor_step, {"lr": 1e-2, "weight_decay": 0.01, "beta1": 0.9}),
}
"""Further forms, for the tests."""

WEIGHT_BOUND, UPDATE_BOUND = 5e-7, 1e-5
"""What rounding may amount to in `errors`: about four units in the last place of float32, and a small part of twenty steps."""


@dataclass(frozen=True)
class Cell:
    """One cell of the parity matrix."""

    optimizer: str
    stage: int | str
    """ZeRO stage 0 to 3, or `FSDP2`."""
    precision: str
    """fp32, or bf16 with gradients that are accumulated in fp32 from micro-step to micro-step and from rank to rank."""
    accumulation: int
    """Micro-steps; a power of two, so that dividing by it is exact in bf16."""
    steps: int = 20
    grad_clip: float = 2.0

    def __str__(self) -> str:
        return f"{self.optimizer}-stage{self.stage}-{self.precision}-accumulation{self.accumulation}"

    @property
    def contender(self) -> Contender:
        return (OPTIMIZERS | VARIANTS)[self.optimizer]

    @property
    def judged(self) -> bool:
        """Whether it has to be exact: DeepSpeed's stage 0 itself adds bf16 gradients up in bf16."""
        return not (self.stage == 0 and self.precision == "bf16")

    @property
    def rounds_weights(self) -> bool:
        """Whether the masters begin at weights that were rounded to bf16: FSDP2's parameters are the masters themselves."""
        return self.precision == "bf16" and self.stage != FSDP2


class Probe(nn.Module):
    """loss = <w, G> for gradients G of the weights' shapes. One module holds all weights, so that ZeRO-3 and FSDP2 gather them at once."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        for index, shape in enumerate(SHAPES):
            self.register_parameter(f"w{index}", nn.Parameter(torch.randn(shape) * 0.1))

    def forward(self, gradients: Sequence[Tensor]) -> Tensor:
        weights = [getattr(self, f"w{index}") for index in range(len(SHAPES))]
        products = [(weight * gradient.to(weight)).float().sum() for weight, gradient in zip(weights, gradients, strict=True)]
        return torch.stack(products).sum()


def draw_gradients(step: int, micro_step: int, rank: int) -> list[Tensor]:
    """Normal gradients whose signs are the step's: bf16 values of both signs often add up to exactly nothing, and what is left of
    such a sum is the rounding of whoever added, which AdamW would divide by itself and blow up to a full step."""
    signs = torch.Generator().manual_seed(step)
    sizes = torch.Generator().manual_seed(1000003 * step + 1009 * micro_step + rank)
    return [
        torch.randn(shape, generator=sizes).abs() * torch.randn(shape, generator=signs).sign() * (index + 1) * 0.1
        for index, shape in enumerate(SHAPES)
    ]


# What the whole-tensor algorithm does -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """The whole-tensor algorithm's run: weights before and after, and the gradients' norms before clipping."""

    initial: list[Tensor]
    final: list[Tensor]
    norms: list[float]


@lru_cache(maxsize=4)
def mean_gradients(precision: str, accumulation: int, steps: int, world_size: int) -> list[list[Tensor]]:
    """Each step's gradients in fp32: drawn, rounded to the precision, averaged over micro-steps and ranks in fp64."""
    low = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    found = []
    for step in range(steps):
        mean = [torch.zeros(shape, dtype=torch.float64) for shape in SHAPES]
        for micro_step in range(accumulation):
            for rank in range(world_size):
                for total, gradient in zip(mean, draw_gradients(step, micro_step, rank), strict=True):
                    total.add_(gradient.to(low).double())
        found.append([(total / (accumulation * world_size)).float() for total in mean])
    return found


def clipped(gradients: Sequence[Tensor], grad_clip: float) -> tuple[list[Tensor], float]:
    """The gradients scaled to a global norm of at most `grad_clip`, and their norm before."""
    norm = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
    return [gradient * min(1.0, grad_clip / (norm + 1e-6)) for gradient in gradients], norm


def whole_answer(cell: Cell, world_size: int) -> Answer:
    """It does not depend on how the cell is sharded, but for the masters that ZeRO rounds in bf16."""
    return _whole_answer(cell if cell.stage == FSDP2 else replace(cell, stage=1), world_size)


@lru_cache(maxsize=64)
def _whole_answer(cell: Cell, world_size: int) -> Answer:
    masters = [param.detach().clone() for param in Probe().parameters()]
    if cell.rounds_weights:
        masters = [master.bfloat16().float() for master in masters]
    initial = [master.clone() for master in masters]
    algorithm = Reference(masters, cell.contender.algorithm, **cell.contender.hyper)
    norms = []
    for gradients in mean_gradients(cell.precision, cell.accumulation, cell.steps, world_size):
        gradients, norm = clipped(gradients, cell.grad_clip)
        algorithm.step(gradients)
        norms.append(norm)
    return Answer(initial, masters, norms)


# What was found -------------------------------------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """What one rank holds of one parameter: the elements [start, stop) of its master weights, and where they lie."""

    name: str
    start: int
    stop: int
    values: Tensor
    handed: int
    """Which of the tensors that the rank's optimizer is handed."""
    offset: int
    """Where in that tensor."""
    handed_numel: int


def pieces(optimizer: ShardedOptimizer, names: Mapping[Any, str]) -> list[Piece]:
    """This rank's master weights, on the CPU; `names` gives each model parameter its name."""
    found = []
    for index, place in enumerate(optimizer.places()):
        for shard in place.shards:
            values = shard.of(place.handed.detach()).cpu().clone()
            interval = shard.interval
            found.append(
                Piece(
                    names[shard.param], interval.start, interval.stop, values, index, shard.offset, came.layouts.local(place.handed).numel()
                )
            )
    return found


def assemble(pieces_by_rank: Sequence[Sequence[Piece]], names: Sequence[str]) -> list[Tensor]:
    """Whole master weights from every rank's pieces; each element must be there, and alike wherever it is there twice."""
    whole = {name: torch.full(shape, torch.nan).flatten() for name, shape in zip(names, SHAPES, strict=True)}
    for piece in (piece for held in pieces_by_rank for piece in held):
        there = whole[piece.name][piece.start : piece.stop]
        assert bool((there.isnan() | (there == piece.values)).all()), f"{piece.name} differs between ranks"
        whole[piece.name][piece.start : piece.stop] = piece.values
    assert all(bool(tensor.isfinite().all()) for tensor in whole.values()), "elements that no rank updates"
    return [tensor.view(shape) for tensor, shape in zip(whole.values(), SHAPES, strict=True)]


def errors(found: Sequence[Tensor], wanted: Sequence[Tensor], initial: Sequence[Tensor]) -> tuple[float, float]:
    """(largest max|w - ref| / max|ref|, largest ||dw - dref|| / ||dref||) over the parameters, in float64."""
    weight, update = 0.0, 0.0
    for mine, right, before in zip(found, wanted, initial, strict=True):
        mine, right, before = mine.double(), right.double(), before.double()
        weight = max(weight, float((mine - right).abs().max() / right.abs().max()))
        update = max(update, float((mine - right).norm() / (right - before).norm()))
    return weight, update


# What others do with it -----------------------------------------------------------------------------------------------------------


def shape_reading(cell: Cell, pieces_by_rank: Sequence[Sequence[Piece]], names: Sequence[str]) -> tuple[list[Tensor], list[int]]:
    """The same algorithm as most implementations of it would run: they read the shape of what they are handed, which is flat.

    Returns the whole weights that it ends with, and the bytes of its state on each rank (its step counts left out).
    """
    answer = whole_answer(cell, len(pieces_by_rank))
    whole = [weights.flatten().clone() for weights in answer.initial]
    index_of = {name: index for index, name in enumerate(names)}
    gradients_by_step = mean_gradients(cell.precision, cell.accumulation, cell.steps, len(pieces_by_rank))
    gradients_by_step = [clipped(gradients, cell.grad_clip)[0] for gradients in gradients_by_step]
    state_bytes = []
    for held in pieces_by_rank:
        numel = {piece.handed: piece.handed_numel for piece in held}

        def flat(tensors: Sequence[Tensor], held: Sequence[Piece] = held, numel: dict[int, int] = numel) -> list[Tensor]:
            """The rank's flat tensors, padding included, filled from whole parameters."""
            made = {handed: torch.zeros(count) for handed, count in numel.items()}
            for piece in held:
                part = tensors[index_of[piece.name]].flatten()[piece.start : piece.stop]
                made[piece.handed][piece.offset : piece.offset + part.numel()] = part
            return list(made.values())

        weights = flat(answer.initial)
        algorithm = Reference(weights, cell.contender.algorithm, **cell.contender.hyper)
        for gradients in gradients_by_step:
            algorithm.step(flat(gradients))
        for piece in held:
            values = weights[list(numel).index(piece.handed)][piece.offset : piece.offset + piece.stop - piece.start]
            whole[index_of[piece.name]][piece.start : piece.stop] = values
        state_bytes.append(sum(_tensor_bytes(value) for state in algorithm.states for value in state.values()))
    return [weights.view(shape) for weights, shape in zip(whole, SHAPES, strict=True)], state_bytes


def _tensor_bytes(value: Any) -> int:
    return value.numel() * value.element_size() if torch.is_tensor(value) else 0
