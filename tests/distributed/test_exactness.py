"""Every optimizer is the same algorithm however they are sharded: bounds of rounding against whole-tensor references."""

import pytest

from came.verify.probe import OPTIMIZERS, UPDATE_BOUND, VARIANTS, WEIGHT_BOUND, Cell, errors, whole_answer
from came.verify.ranks import run_on_ranks
from tests.distributed.probe import OffloadedCell, assemble, local_masters, start, train

STAGES = [("fp32", 0), ("fp32", 1), ("fp32", 2), ("fp32", 3), ("bf16", 1), ("bf16", 2), ("bf16", 3)]
SOME_STAGES = [("fp32", 1), ("bf16", 3)]
CELLS = {
    2: [Cell(optimizer, stage, precision, 4) for optimizer in OPTIMIZERS for precision, stage in STAGES]
    + [Cell("came", stage, precision, 1) for precision, stage in STAGES],
    **{
        world_size: [
            Cell(optimizer, stage, precision, 4)
            for optimizer in OPTIMIZERS
            for precision, stage in (STAGES if optimizer == "came" else SOME_STAGES)
        ]
        for world_size in (1, 3)
    },
}
"""By number of ranks; `python -m came.verify --ranks 1,2,3,4` is the whole matrix."""
VARIANT_CELLS = [Cell(name, stage, "fp32", 1) for name in VARIANTS for stage in (1, 3)]
LONG_ACCUMULATION = [Cell("came", stage, "bf16", 256, steps=2) for stage in (1, 2, 3)]
OFFLOADED = {
    1: [OffloadedCell("came", stage, "fp32", 1) for stage in (1, 2, 3)],
    2: [OffloadedCell("came", stage, precision, 1) for precision in ("fp32", "bf16") for stage in (1, 2, 3)],
    3: [OffloadedCell("came", stage, precision, 4) for precision in ("fp32", "bf16") for stage in (1, 2, 3)]
    + [OffloadedCell("adamw", stage, precision, 4) for precision, stage in SOME_STAGES],
}
LONG_OFFLOADED = [OffloadedCell("came", stage, "bf16", 256, steps=2) for stage in (1, 2)]


def train_cells(cells: list[Cell]) -> list[tuple]:
    """On each rank: the trained master weights and gradient norms of every cell."""
    results = []
    for cell in cells:
        engine = start(cell)
        norms = train(engine, cell)
        results.append((local_masters(engine), norms))
        engine.destroy()
    return results


def check(cells: list[Cell], world_size: int) -> None:
    by_rank = run_on_ranks(world_size, train_cells, cells)
    failures = []
    for index, cell in enumerate(cells):
        answer = whole_answer(cell, world_size)
        assert any(norm > cell.grad_clip for norm in answer.norms), "the probe must clip"
        weight, update = errors(assemble([results[index][0] for results in by_rank]), answer.final, answer.initial)
        print(f"{cell} ranks={world_size}: weight {weight:.1e} update {update:.1e}")
        if not (weight <= WEIGHT_BOUND and update <= UPDATE_BOUND):
            failures.append(f"{cell}: weight {weight:.2e}, update {update:.2e}")
        found_norms = by_rank[0][index][1]
        assert found_norms == pytest.approx(answer.norms, rel=1e-5), f"{cell}: gradient norms"
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_sharded_updates_equal_whole_tensor_updates(world_size: int) -> None:
    check(CELLS[world_size], world_size)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_updates_in_the_host_s_memory_equal_whole_tensor_updates(world_size: int) -> None:
    check(OFFLOADED[world_size], world_size)


@pytest.mark.parametrize("world_size", [2, 3])
def test_so_do_the_variants(world_size: int) -> None:
    check(VARIANT_CELLS, world_size)


@pytest.mark.parametrize("world_size", [2, 3])
def test_long_bf16_accumulation_equals_fp32_accumulation(world_size: int) -> None:
    check(LONG_ACCUMULATION, world_size)


def test_long_bf16_accumulation_in_the_host_s_memory_equals_fp32_accumulation() -> None:
    check(LONG_OFFLOADED, 3)


@pytest.mark.soak
def test_the_whole_matrix() -> None:
    """Every optimizer, ZeRO 0-3, fp32 and bf16, 1 to 4 ranks."""
    from came.verify.__main__ import main

    assert main(["--ranks", "1,2,3,4", "--stages", "0,1,2,3", "--dtype", "fp32,bf16", "--optimizers", ",".join(OPTIMIZERS)]) == 0
