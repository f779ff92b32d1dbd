"""The parity matrix: which cells, trained on ranks of this machine, judged against the whole-tensor algorithms."""

import gc
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

import came
from came.memory import state_bytes
from came.verify.engines import Outcome, import_deepspeed, train
from came.verify.probe import FSDP2, SHAPES, UPDATE_BOUND, WEIGHT_BOUND, Cell, Probe, assemble, errors, shape_reading, whole_answer
from came.verify.ranks import run_on_ranks

_ACCUMULATION = 2


@dataclass(frozen=True)
class Naive:
    """What the algorithm becomes where it reads the shape of a flat partition."""

    update: float
    """Error of the update: see `Row.update`."""
    state_bytes: list[int]


@dataclass(frozen=True)
class Row:
    """What was found of one cell."""

    cell: Cell
    ranks: int
    weight: float
    """Largest max|w - ref| / max|ref| over the parameters."""
    update: float
    """Largest ||dw - dref|| / ||dref|| over the parameters."""
    state_bytes: list[int]
    """Measured on each rank."""
    predicted_bytes: list[int]
    adamw_bytes: list[int]
    """AdamW's, predicted."""
    naive: Naive | None
    """None where parameters keep their shapes: stage 0 and FSDP2."""

    @property
    def exact(self) -> bool:
        return self.weight <= WEIGHT_BOUND and self.update <= UPDATE_BOUND

    @property
    def holds(self) -> bool:
        return (self.exact or not self.cell.judged) and self.state_bytes == self.predicted_bytes


def cells(optimizers: Sequence[str], stages: Sequence[int | str], precisions: Sequence[str]) -> list[Cell]:
    return [Cell(*choice, _ACCUMULATION) for choice in itertools.product(optimizers, stages, precisions)]


def run(chosen: Sequence[Cell], world_size: int) -> list[Row]:
    """Train all cells in one process group of `world_size` ranks, and judge them."""
    by_rank = run_on_ranks(world_size, _train_all, chosen, gpus=torch.cuda.device_count() >= world_size)
    return [_judge(cell, list(outcomes)) for cell, outcomes in zip(chosen, zip(*by_rank, strict=True), strict=True)]


def _train_all(chosen: Sequence[Cell]) -> list[Outcome]:
    if any(cell.stage != FSDP2 for cell in chosen):
        import_deepspeed()
    gc.freeze()  # DeepSpeed collects garbage for each cell; it need not search the libraries
    outcomes = []
    for number, cell in enumerate(chosen, start=1):
        outcomes.append(train(cell))
        if dist.get_rank() == 0:
            _progress(f"{number} of {len(chosen)} cells on {dist.get_world_size()} ranks", last=number == len(chosen))
    return outcomes


def _progress(line: str, last: bool) -> None:
    """On a terminal one line that changes; elsewhere a line now and then would be noise, so only the last."""
    if sys.stderr.isatty():
        print(f"\r{line}", end="\n" if last else "", file=sys.stderr, flush=True)
    elif last:
        print(line, file=sys.stderr, flush=True)


def _judge(cell: Cell, outcomes: list[Outcome]) -> Row:
    names = [name for name, _ in Probe().named_parameters()]
    held = [outcome.pieces for outcome in outcomes]
    world_size, answer = len(outcomes), whole_answer(cell, len(outcomes))
    naive = None
    if cell.stage not in (0, FSDP2):
        weights, naive_bytes = shape_reading(cell, held, names)
        naive = Naive(errors(weights, answer.final, answer.initial)[1], naive_bytes)
    return Row(
        cell,
        world_size,
        *errors(assemble(held, names), answer.final, answer.initial),
        [outcome.state_bytes for outcome in outcomes],
        state_bytes(cell.contender.make.rule, [SHAPES], world_size, cell.stage),
        state_bytes(came.AdamW.rule, [SHAPES], world_size, cell.stage),
        naive,
    )
