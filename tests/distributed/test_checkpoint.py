"""Masters and state by parameter name: what one layout saved, another loads to the bit, and training goes on as if nothing had been."""

import itertools
from pathlib import Path

import pytest
import torch

from came import checkpoint
from came.verify.probe import OPTIMIZERS, UPDATE_BOUND, WEIGHT_BOUND, Cell, errors, whole_answer
from came.verify.ranks import run_on_ranks
from tests.distributed.probe import LinearProbe, OffloadedCell, assemble, local_masters, start, train

SAVED = {name: Cell(name, 2, "fp32", 1, steps=10) for name in OPTIMIZERS}
HALF, WHOLE = 10, 20


def save(folder: str) -> dict:
    """Ten steps at stage 2, saved, then ten more without interruption."""
    results = {}
    for name, cell in SAVED.items():
        engine = start(cell)
        train(engine, cell)
        checkpoint.save(engine.optimizer, engine.names, Path(folder, name))
        saved = local_masters(engine)
        train(engine, Cell(name, 2, "fp32", 1, steps=WHOLE), first_step=HALF)
        results[name] = (saved, local_masters(engine))
        engine.destroy()
    return results


def load_and_go_on(folder: str, stages: tuple[int, ...], last_step: int = WHOLE, kind: type[Cell] = Cell) -> dict:
    results = {}
    for name, stage in itertools.product(SAVED, stages):
        cell = kind(name, stage, "fp32", 1, steps=last_step)
        engine = start(cell)
        checkpoint.load(engine.optimizer, engine.names, Path(folder, name))
        engine.push_masters()
        loaded = local_masters(engine)
        train(engine, cell, first_step=HALF)
        results[name, stage] = (loaded, local_masters(engine))
        engine.destroy()
    return results


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def saved(folder: str) -> list[dict]:
    return run_on_ranks(2, save, folder)


@pytest.fixture(scope="module")
def resumed(folder: str, saved: list[dict]) -> list[dict]:
    return run_on_ranks(2, load_and_go_on, folder, (0, 1, 2, 3))


@pytest.fixture(scope="module")
def loaded(folder: str, saved: list[dict], resumed: list[dict]) -> dict[int, list[dict]]:
    others = {ranks: run_on_ranks(ranks, load_and_go_on, folder, (0, 1, 2, 3), HALF) for ranks in (1, 3)}
    return {2: resumed, **others}


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("name", SAVED)
def test_loading_restores_every_bit_at_any_stage_and_number_of_ranks(
    saved: list[dict], loaded: dict, name: str, ranks: int, stage: int
) -> None:
    wanted = assemble([found[name][0] for found in saved])
    found = assemble([found[name, stage][0] for found in loaded[ranks]])
    assert all(torch.equal(left, right) for left, right in zip(found, wanted, strict=True))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("name", SAVED)
def test_the_continuation_is_the_uninterrupted_run(saved: list[dict], resumed: list[dict], name: str, stage: int) -> None:
    wanted = assemble([found[name][1] for found in saved])
    found = assemble([found[name, stage][1] for found in resumed])
    if stage == SAVED[name].stage:
        assert all(torch.equal(left, right) for left, right in zip(found, wanted, strict=True))
    weight, update = errors(found, wanted, whole_answer(SAVED[name], 2).initial)
    assert weight <= WEIGHT_BOUND and update <= UPDATE_BOUND


@pytest.fixture(scope="module")
def offloaded(folder: str, saved: list[dict]) -> list[dict]:
    return run_on_ranks(2, load_and_go_on, folder, (1, 2, 3), WHOLE, OffloadedCell)


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("name", SAVED)
def test_it_goes_on_in_the_host_s_memory(saved: list[dict], offloaded: list[dict], name: str, stage: int) -> None:
    wanted, found = (assemble([found[key][0] for found in by_rank]) for by_rank, key in ((saved, name), (offloaded, (name, stage))))
    assert all(torch.equal(left, right) for left, right in zip(found, wanted, strict=True))
    wanted, found = (assemble([found[key][1] for found in by_rank]) for by_rank, key in ((saved, name), (offloaded, (name, stage))))
    weight, update = errors(found, wanted, whole_answer(SAVED[name], 2).initial)
    assert weight <= WEIGHT_BOUND and update <= UPDATE_BOUND


@pytest.mark.parametrize("name", SAVED)
def test_masters_can_be_read_alone(folder: str, saved: list[dict], name: str) -> None:
    masters = checkpoint.load_masters(Path(folder, name))
    wanted = assemble([found[name][0] for found in saved])
    names = [name for name, _ in LinearProbe().named_parameters()]
    assert sorted(masters) == sorted(names)
    for parameter, right in zip(names, wanted, strict=True):
        assert torch.equal(masters[parameter], right.flatten())
