"""CAME by its kernels under DeepSpeed and FSDP2: the same bounds of rounding, two reductions a step instead of three."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import torch.distributed as dist
import torch.multiprocessing

from came import CAME, kernels, lockstep
from came.traffic import Group, fused_reductions
from came.verify import engines, probe, ranks
from came.verify.probe import FSDP2, UPDATE_BOUND, WEIGHT_BOUND, Cell, Probe, assemble, errors, whole_answer
from tests.unit.kernels import running

CELLS = [Cell("came", 2, "fp32", 1, steps=1), Cell("came", 3, "bf16", 1, steps=2), Cell("came", FSDP2, "fp32", 1, steps=1)]


OF_TWO_MINDS = Cell("came", FSDP2, "fp32", 1, steps=2)


@contextmanager
def made_with(implementation: str) -> Iterator[list[CAME]]:
    """The optimizers that the probe is trained with, as they are made."""
    made: list[CAME] = []

    def make(params: Any, **hyper: Any) -> CAME:
        made.append(CAME(params, **hyper, implementation=implementation))
        return made[-1]

    with patch.dict(probe.OPTIMIZERS, came=replace(probe.OPTIMIZERS["came"], make=make)):
        yield made


def train_cells() -> list[tuple]:
    """The master weights of every cell, and what its last step sent."""
    with made_with("triton") as made:
        return [(engines.train(cell).pieces, made[-1].traffic.calls, made[-1].traffic.num_bytes) for cell in CELLS]


def train_where_kernels_fail_their_trial_on_rank_1() -> dict[str, Any]:
    from came.kernels import trial

    said, settled = [], []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("came").addHandler(handler)

    def agreed(here: Any, group: Any, real: Any = lockstep.agreed) -> list[bool]:
        settled.append(here)
        return real(here, group)

    with (
        made_with("auto") as made,
        patch.object(kernels, "chosen_for", lambda handed: True),
        patch.object(trial, "passes", lambda *_: dist.get_rank() != 1),
        patch.object(lockstep, "agreed", agreed),
    ):
        pieces = engines.train(OF_TWO_MINDS).pieces
    return {"pieces": pieces, "fused": made[-1]._fused is not None, "said": said, "settled": len(settled)}


def refusal_where_triton_is_missing_on_rank_1() -> str:
    with made_with("triton"), patch.object(kernels, "available", lambda: dist.get_rank() != 1):
        try:
            engines.train(OF_TWO_MINDS)
        except ValueError as refusal:
            return str(refusal)
    return "none"


def observe() -> dict[str, Any]:
    """On each rank, in Triton's interpreter."""
    running.prepare()
    found = {"refusal": refusal_where_triton_is_missing_on_rank_1(), "of two minds": train_where_kernels_fail_their_trial_on_rank_1()}
    return found | {"cells": train_cells()}


@pytest.fixture(scope="module")
def observed() -> list[dict[str, Any]]:
    """Not forked from where everything is imported: there Triton is too, and compiles."""
    pytest.importorskip("triton", reason="the fused step is written in Triton: pip install triton")
    fresh = partial(torch.multiprocessing.start_processes, start_method="spawn")
    with patch.object(ranks.mp, "spawn", fresh), patch.dict(os.environ, TRITON_INTERPRET="1"):
        return ranks.run_on_ranks(2, observe)


def exact(by_rank: list, cell: Cell) -> bool:
    names = [name for name, _ in Probe().named_parameters()]
    answer = whole_answer(cell, len(by_rank))
    weight, update = errors(assemble(by_rank, names), answer.final, answer.initial)
    return weight <= WEIGHT_BOUND and update <= UPDATE_BOUND


@pytest.mark.parametrize("index", range(len(CELLS)), ids=lambda index: str(CELLS[index]))
def test_the_kernels_are_exact_where_parameters_are_sharded(observed: list[dict], index: int) -> None:
    assert exact([of_rank["cells"][index][0] for of_rank in observed], CELLS[index])


@pytest.mark.parametrize("index", range(len(CELLS)), ids=lambda index: str(CELLS[index]))
def test_two_packed_reductions_a_step_of_the_predicted_bytes(observed: list[dict], index: int) -> None:
    shapes = [tuple(param.shape) for param in Probe().parameters()]
    predicted = fused_reductions([[Group({}, shapes)]], 2, CELLS[index].stage)
    assert observed[0]["cells"][index][1:] == (2, predicted.num_bytes) and predicted.calls == 2


def test_where_the_kernels_fail_on_one_rank_all_take_the_rule_and_say_so(observed: list[dict]) -> None:
    found = [of_rank["of two minds"] for of_rank in observed]
    assert not any(of_rank["fused"] for of_rank in found)
    assert exact([of_rank["pieces"] for of_rank in found], OF_TWO_MINDS)
    assert found[0]["said"] == [
        "CAME: the rule in PyTorch is taken, because the kernels cannot be taken on another rank that shares the parameters"
    ]
    assert [of_rank["settled"] for of_rank in found] == [2, 2], "where things are and what is done with them, once in two steps"


def test_kernels_that_are_asked_for_and_missing_on_one_rank_are_refused_on_all(observed: list[dict]) -> None:
    assert "Triton is not installed" in observed[1]["refusal"]
    assert "on another rank that shares the parameters" in observed[0]["refusal"]
