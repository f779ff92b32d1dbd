"""Distributed data parallel: every rank updates every parameter, alike, as one process would."""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from came.verify.probe import (
    OPTIMIZERS,
    UPDATE_BOUND,
    WEIGHT_BOUND,
    Cell,
    Piece,
    Probe,
    assemble,
    draw_gradients,
    errors,
    pieces,
    whole_answer,
)
from came.verify.ranks import run_on_ranks
from tests.distributed import odd

CELLS = {name: Cell(name, 0, "fp32", 2) for name in OPTIMIZERS}


def observe() -> dict[str, tuple[list[Piece], int]]:
    return {**{name: _train(cell) for name, cell in CELLS.items()}, "odd": _odd()}


def _train(cell: Cell) -> tuple[list[Piece], int]:
    model = Probe()
    wrapped = DistributedDataParallel(model)
    optimizer = cell.contender.make(wrapped.parameters(), **cell.contender.hyper)
    for step in range(cell.steps):
        for micro_step in range(cell.accumulation):
            (wrapped(draw_gradients(step, micro_step, dist.get_rank())) / cell.accumulation).backward()
        torch.nn.utils.clip_grad_norm_(wrapped.parameters(), cell.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
    return pieces(optimizer, {param: name for name, param in model.named_parameters()}), optimizer.traffic.calls


def _odd() -> tuple[list[Piece], int]:
    model = odd.Odd()
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    optimizer = odd.make_optimizer(model)

    def backward_and_step(loss: torch.Tensor) -> None:
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    odd.train(wrapped, backward_and_step, dist.get_rank())
    return pieces(optimizer, {param: name for name, param in model.named_parameters()}), optimizer.traffic.calls


def test_every_optimizer_is_exact_and_sends_nothing_of_its_own() -> None:
    by_rank = run_on_ranks(2, observe)
    names = [name for name, _ in Probe().named_parameters()]
    for name, cell in CELLS.items():
        answer = whole_answer(cell, 2)
        weight, update = errors(assemble([found[name][0] for found in by_rank], names), answer.final, answer.initial)
        assert weight <= WEIGHT_BOUND and update <= UPDATE_BOUND, name
        assert by_rank[0][name][1] == 0
    odd.check([found["odd"][0] for found in by_rank], 2, unused_gradient="none")
