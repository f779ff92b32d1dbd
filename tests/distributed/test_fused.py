"""CAME by its kernels under DeepSpeed and FSDP2: the same bounds of rounding, two reductions a step instead of three."""

import os
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import torch.multiprocessing

from came import CAME
from came.traffic import Group, fused_reductions
from came.verify import engines, probe, ranks
from came.verify.probe import FSDP2, UPDATE_BOUND, WEIGHT_BOUND, Cell, Probe, assemble, errors, whole_answer
from tests.unit.kernels import running

CELLS = [Cell("came", 2, "fp32", 1, steps=1), Cell("came", 3, "bf16", 1, steps=2), Cell("came", FSDP2, "fp32", 1, steps=1)]


def train_cells() -> list[tuple]:
    """On each rank, in Triton's interpreter: the master weights of every cell, and what its last step sent."""
    running.prepare()
    made: list[CAME] = []

    def make(params: Any, **hyper: Any) -> CAME:
        made.append(CAME(params, **hyper, implementation="triton"))
        return made[-1]

    probe.OPTIMIZERS["came"] = replace(probe.OPTIMIZERS["came"], make=make)
    return [(engines.train(cell).pieces, made[-1].traffic.calls, made[-1].traffic.num_bytes) for cell in CELLS]


@pytest.fixture(scope="module")
def found() -> list[list[tuple]]:
    """Not forked from where everything is imported: there Triton is too, and compiles."""
    pytest.importorskip("triton", reason="the fused step is written in Triton: pip install triton")
    fresh = partial(torch.multiprocessing.start_processes, start_method="spawn")
    with patch.object(ranks.mp, "spawn", fresh), patch.dict(os.environ, TRITON_INTERPRET="1"):
        return ranks.run_on_ranks(2, train_cells)


@pytest.mark.parametrize("index", range(len(CELLS)), ids=lambda index: str(CELLS[index]))
def test_the_kernels_are_exact_where_parameters_are_sharded(found: list[list[tuple]], index: int) -> None:
    names = [name for name, _ in Probe().named_parameters()]
    answer = whole_answer(CELLS[index], 2)
    weight, update = errors(assemble([of_rank[index][0] for of_rank in found], names), answer.final, answer.initial)
    assert weight <= WEIGHT_BOUND and update <= UPDATE_BOUND


@pytest.mark.parametrize("index", range(len(CELLS)), ids=lambda index: str(CELLS[index]))
def test_two_packed_reductions_a_step_of_the_predicted_bytes(found: list[list[tuple]], index: int) -> None:
    shapes = [tuple(param.shape) for param in Probe().parameters()]
    predicted = fused_reductions([[Group({}, shapes)]], 2, CELLS[index].stage)
    assert found[0][index][1:] == (2, predicted.num_bytes) and predicted.calls == 2
