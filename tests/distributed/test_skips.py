"""A gradient that is not finite on one rank: the step is skipped on all, named, and leaves everything as it was."""

import math

import pytest
import torch
from torch import Tensor

from came.verify.probe import Cell, draw_gradients
from came.verify.ranks import run_on_ranks
from pretrain import distributed
from tests.distributed.probe import LinearProbe, OffloadedCell, local_masters, start

CELLS = [Cell("came", stage, "fp32", 2) for stage in (0, 1, 2, 3)] + [Cell("came", stage, "bf16", 2) for stage in (1, 2, 3)]
CELLS += [OffloadedCell("came", stage, precision, 2) for precision in ("fp32", "bf16") for stage in (1, 2, 3)]
POISONED = 4
"""Index of the parameter whose gradient is poisoned, on rank 1 alone, in the first micro-step of two."""


class PoisonedProbe(LinearProbe):
    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        step, micro_step, rank, poison = batch["key"].tolist()
        gradients = draw_gradients(step, micro_step, rank)
        if poison and rank == 1 and micro_step == 0:
            gradients[POISONED] = gradients[POISONED].clone()
            gradients[POISONED].view(-1)[0] = math.inf
        return {"probe": self.model(gradients)}


def steps_with_a_poisoned_one(cell: Cell) -> dict:
    engine = start(cell, PoisonedProbe)

    def step(index: int, poison: bool):
        keys = [(index, micro_step, distributed.rank(), int(poison)) for micro_step in range(cell.accumulation)]
        engine.accumulate([{"key": torch.tensor(key)} for key in keys])
        return engine.step(cell.contender.hyper["lr"])

    def snapshot() -> dict[str, Tensor]:
        found = {f"{piece.name}[{piece.start}]": piece.values for piece in local_masters(engine)}
        for place in engine.optimizer.places():
            for index, views in enumerate(engine.optimizer.state_views(place)):
                found |= {f"{index} {name}": value.clone() for name, value in views.items()}
        return found

    first = step(0, poison=False)
    before = snapshot()
    skipped = step(1, poison=True)
    after = snapshot()
    recovered = step(2, poison=False)
    final = local_masters(engine)
    engine.destroy()

    engine = start(cell, PoisonedProbe)  # the same without the poisoned step
    step(0, poison=False)
    step(2, poison=False)
    undisturbed = local_masters(engine)
    engine.destroy()
    return {
        "applied": [first.applied, skipped.applied, recovered.applied],
        "norm_is_finite": [math.isfinite(result.grad_norm) for result in (first, skipped, recovered)],
        "bad_parameter": skipped.bad_parameter,
        "untouched": before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before),
        "recovered": all(torch.equal(left.values, right.values) for left, right in zip(final, undisturbed, strict=True)),
    }


def all_cells() -> list[dict]:
    return [steps_with_a_poisoned_one(cell) for cell in CELLS]


@pytest.fixture(scope="module")
def found() -> list[list[dict]]:
    return run_on_ranks(2, all_cells)


@pytest.mark.parametrize("index", range(len(CELLS)), ids=map(str, CELLS))
def test_a_poisoned_step_is_skipped_on_every_rank(found: list[list[dict]], index: int) -> None:
    for rank in (0, 1):
        result = found[rank][index]
        assert result["applied"] == [True, False, True]
        assert result["norm_is_finite"] == [True, False, True]
        assert result["bad_parameter"] == f"model.w{POISONED}"
        assert result["untouched"]
        assert result["recovered"]
