"""CAME by its kernels under DeepSpeed: the same bounds of rounding, two reductions a step instead of three."""

import os
from functools import partial
from unittest.mock import patch

import pytest
import torch.multiprocessing

from came.verify import ranks
from came.verify.probe import UPDATE_BOUND, WEIGHT_BOUND, Cell, errors, whole_answer
from pretrain import distributed
from pretrain.engine import Engine
from tests.distributed.probe import LinearProbe, assemble, local_masters, probe_config, train
from tests.unit.kernels import running

CELLS = [Cell("came", 2, "fp32", 1, steps=2), Cell("came", 3, "bf16", 1, steps=2)]


def train_cells() -> list[tuple]:
    """On each rank, in Triton's interpreter: the master weights of every cell, and what its last step sent."""
    running.prepare()
    results = []
    for cell in CELLS:
        model = LinearProbe()
        optimizer = cell.contender.make(model.parameters(), **cell.contender.hyper, implementation="triton")
        engine = Engine(model, optimizer, *probe_config(cell, distributed.world_size()))
        train(engine, cell)
        results.append((local_masters(engine), optimizer.traffic.calls, optimizer.traffic.num_bytes))
        engine.destroy()
    return results


@pytest.fixture(scope="module")
def found() -> list[list[tuple]]:
    """Not forked from where everything is imported: there Triton is too, and compiles."""
    pytest.importorskip("triton", reason="the fused step is written in Triton: pip install triton")
    fresh = partial(torch.multiprocessing.start_processes, start_method="spawn")
    with patch.object(ranks.mp, "spawn", fresh), patch.dict(os.environ, TRITON_INTERPRET="1"):
        return ranks.run_on_ranks(2, train_cells)


@pytest.mark.parametrize("index", range(len(CELLS)), ids=lambda index: str(CELLS[index]))
def test_the_kernels_are_exact_under_zero(found: list[list[tuple]], index: int) -> None:
    answer = whole_answer(CELLS[index], 2)
    weight, update = errors(assemble([of_rank[index][0] for of_rank in found]), answer.final, answer.initial)
    assert weight <= WEIGHT_BOUND and update <= UPDATE_BOUND


def test_two_packed_reductions_a_step(found: list[list[tuple]]) -> None:
    assert [calls for _, calls, _ in found[0]] == [2, 2]
    assert all(num_bytes > 0 for _, _, num_bytes in found[0])
