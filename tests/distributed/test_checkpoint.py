"""Masters and state by parameter name: what one layout saved, another loads to the bit, and training goes on as if nothing had been."""

import itertools
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from came import checkpoint
from came.checkpoint import IntervalTensor
from came.reference import Reference
from came.verify.probe import OPTIMIZERS, UPDATE_BOUND, WEIGHT_BOUND, Cell, clipped, errors, mean_gradients, whole_answer
from came.verify.ranks import run_on_ranks
from pretrain import distributed
from pretrain.engine import Engine
from tests.distributed.probe import LinearProbe, OffloadedCell, assemble, local_masters, start, train

HALF, WHOLE = 10, 20
SAVED_AT = {"fp32": 2, "bf16": 2}
"""The stage, on two ranks."""
STAGES = {"fp32": (0, 1, 2, 3), "bf16": (1, 2, 3)}
LAYOUTS = [(precision, stage) for precision, stages in STAGES.items() for stage in stages]

Held = dict[str, tuple[int, Tensor]]
"""Masters and state of one rank by name, each with its first element in the whole."""


def held(engine: Engine) -> Held:
    found = checkpoint.state_dict(engine.optimizer, engine.names)
    return {
        key: (value.start, value.local.detach().clone()) if isinstance(value, IntervalTensor) else (0, value.detach().clone())
        for key, value in found.items()
    }


def save(folder: str) -> dict:
    """Ten steps, saved, then ten more without interruption."""
    results = {}
    for name, precision in itertools.product(OPTIMIZERS, SAVED_AT):
        cell = Cell(name, SAVED_AT[precision], precision, 1, steps=HALF)
        engine = start(cell)
        train(engine, cell)
        # As a run saves it: a copy, which is written when training has gone on.
        copy = checkpoint.stage(checkpoint.state_dict(engine.optimizer, engine.names), {})
        saved = held(engine)
        train(engine, Cell(name, SAVED_AT[precision], precision, 1, steps=WHOLE), first_step=HALF)
        checkpoint.write(copy, Path(folder, f"{name}-{precision}"), distributed.cpu_group())
        results[name, precision] = (saved, local_masters(engine))
        engine.destroy()
    return results


def load_and_go_on(folder: str, layouts: Sequence[tuple[str, int]], kind: type[Cell] = Cell) -> dict:
    results = {}
    for name, (precision, stage) in itertools.product(OPTIMIZERS, layouts):
        cell = kind(name, stage, precision, 1, steps=WHOLE)
        engine = start(cell)
        checkpoint.load(engine.optimizer, engine.names, Path(folder, f"{name}-{precision}"))
        engine.push_masters()
        loaded = held(engine)
        train(engine, cell, first_step=HALF)
        results[name, precision, stage] = (loaded, local_masters(engine))
        engine.destroy()
    return results


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def saved(folder: str) -> list[dict]:
    return run_on_ranks(2, save, folder)


@pytest.fixture(scope="module")
def resumed(folder: str, saved: list[dict]) -> dict[int, list[dict]]:
    return {ranks: run_on_ranks(ranks, load_and_go_on, folder, LAYOUTS) for ranks in (1, 2, 3, 4)}


@lru_cache
def whole(folder: Path) -> dict[str, Tensor]:
    return checkpoint.load_whole(folder)


def assert_held(by_rank: list[Held], folder: Path) -> None:
    """Every rank holds its part of what the checkpoint holds, to the bit, and together they hold all of it."""
    wanted = whole(folder)
    covered = {key: torch.zeros(value.numel(), dtype=torch.bool) for key, value in wanted.items()}
    for rank in by_rank:
        for key, (first, values) in rank.items():
            part = slice(first, first + values.numel())
            assert torch.equal(wanted[key].flatten()[part], values.flatten()), key
            covered[key][part] = True
    assert all(bool(seen.all()) for seen in covered.values())


@lru_cache(maxsize=1)
def gradients(precision: str, ranks: int) -> list[list[Tensor]]:
    """Each step's: of two ranks up to the checkpoint, of `ranks` after it."""
    return mean_gradients(precision, 1, WHOLE, 2)[:HALF] + mean_gradients(precision, 1, WHOLE, ranks)[HALF:]


@lru_cache
def whole_continuation(name: str, precision: str, ranks: int) -> list[Tensor]:
    """The whole-tensor algorithm over the same steps."""
    cell = Cell(name, SAVED_AT[precision], precision, 1, steps=WHOLE)
    masters = [master.clone() for master in whole_answer(cell, 2).initial]
    algorithm = Reference(masters, cell.contender.algorithm, **cell.contender.hyper)
    for step in gradients(precision, ranks):
        algorithm.step(clipped(step, cell.grad_clip)[0])
    return masters


def assert_exact(found: list[Tensor], name: str, precision: str, ranks: int) -> None:
    initial = whole_answer(Cell(name, SAVED_AT[precision], precision, 1), 2).initial
    weight, update = errors(found, whole_continuation(name, precision, ranks), initial)
    assert weight <= WEIGHT_BOUND and update <= UPDATE_BOUND


@pytest.mark.parametrize("precision", SAVED_AT)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_written_later_is_what_was_copied(folder: str, saved: list[dict], name: str, precision: str) -> None:
    assert_held([found[name, precision][0] for found in saved], Path(folder, f"{name}-{precision}"))


layouts = pytest.mark.parametrize(("precision", "stage"), LAYOUTS, ids=[f"{precision}-stage{stage}" for precision, stage in LAYOUTS])
any_ranks = pytest.mark.parametrize("ranks", [1, 2, 3, 4])


@layouts
@any_ranks
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_loading_restores_every_bit_at_any_stage_and_number_of_ranks(
    folder: str, resumed: dict, name: str, ranks: int, precision: str, stage: int
) -> None:
    assert_held([found[name, precision, stage][0] for found in resumed[ranks]], Path(folder, f"{name}-{precision}"))


@layouts
@any_ranks
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_continuation_is_the_whole_tensor_algorithm_s(resumed: dict, name: str, ranks: int, precision: str, stage: int) -> None:
    assert_exact(assemble([found[name, precision, stage][1] for found in resumed[ranks]]), name, precision, ranks)


@pytest.mark.parametrize("precision", SAVED_AT)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_at_the_same_layout_it_is_the_uninterrupted_run_to_the_bit(saved: list[dict], resumed: dict, name: str, precision: str) -> None:
    wanted = assemble([found[name, precision][1] for found in saved])
    found = assemble([found[name, precision, SAVED_AT[precision]][1] for found in resumed[2]])
    assert all(torch.equal(left, right) for left, right in zip(found, wanted, strict=True))


OFFLOADED = [("fp32", 1), ("fp32", 2), ("fp32", 3)]


@pytest.fixture(scope="module")
def offloaded(folder: str, saved: list[dict]) -> list[dict]:
    return run_on_ranks(2, load_and_go_on, folder, OFFLOADED, OffloadedCell)


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_goes_on_in_the_host_s_memory(folder: str, offloaded: list[dict], name: str, stage: int) -> None:
    assert_held([found[name, "fp32", stage][0] for found in offloaded], Path(folder, f"{name}-fp32"))
    assert_exact(assemble([found[name, "fp32", stage][1] for found in offloaded]), name, "fp32", 2)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_masters_can_be_read_alone(folder: str, saved: list[dict], name: str) -> None:
    masters = checkpoint.load_masters(Path(folder, f"{name}-fp32"))
    assert sorted(masters) == sorted(name for name, _ in LinearProbe().named_parameters())
    for rank in saved:
        for key, (first, values) in rank[name, "fp32"][0].items():
            if key.endswith("/master"):
                assert torch.equal(masters[key.removesuffix("/master")][first : first + values.numel()], values)
