"""kill -9 at every point of a step and of a save: the same command goes on, to the same bits, and its metrics have no gap."""

import random
import time

import pytest
import torch

from came.checkpoint import load_masters
from pretrain.run_folder import RunFolder
from tests.faults.fault_points import POINTS
from tests.forked_runs import SMALL, ForkedRuns, told

STAGES = ("zero=stage2 train.precision=bf16", "zero=stage3 train.precision=fp32", "zero=stage1 train.precision=bf16", "zero=stage0")
"""In turn, so that each point meets one."""


def final_masters(folder: RunFolder) -> dict[str, torch.Tensor]:
    return load_masters(folder.checkpoint(8))


@pytest.fixture(scope="module")
def undisturbed(runs: ForkedRuns) -> dict[str, tuple[dict[str, torch.Tensor], list[tuple]]]:
    found = {}
    for number, stage in enumerate(STAGES):
        ended = runs.run(*SMALL, *stage.split(), f"run.name=undisturbed{number}")
        assert ended.codes == [0, 0], ended.said
        folder = RunFolder(runs.folder / "runs" / f"undisturbed{number}")
        found[stage] = final_masters(folder), told(folder)
    return found


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_goes_on_to_the_same_bits(runs: ForkedRuns, undisturbed: dict, point: str) -> None:
    stage = STAGES[list(POINTS).index(point) % len(STAGES)]
    command = *SMALL, *stage.split(), f"run.name={point}"
    folder = RunFolder(runs.folder / "runs" / point)
    killed = runs.run(*command, fault=POINTS[point])
    assert killed.codes == [-9, -9], killed.said
    whole_before = folder.latest_checkpoint()
    assert whole_before is not None

    assert "going on from step" in finish(runs, command)
    assert_same_end(folder, undisturbed[stage])


def finish(runs: ForkedRuns, command: tuple[str, ...]) -> str:
    ended = runs.run(*command)
    assert ended.codes == [0, 0], ended.said
    return ended.said


def assert_same_end(folder: RunFolder, undisturbed: tuple[dict[str, torch.Tensor], list[tuple]]) -> None:
    masters, lines = undisturbed
    found = final_masters(folder)
    assert found.keys() == masters.keys() and all(torch.equal(found[name], masters[name]) for name in masters)
    assert told(folder) == lines
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["latest", "step_00000006", "step_00000008"]


MOMENTS = [*((None, number) for number in range(20)), *((rank, number) for rank in (0, 1) for number in range(5))]


@pytest.fixture(scope="module")
def length(runs: ForkedRuns) -> float:
    """Seconds of a whole run."""
    begun = time.monotonic()
    runs.run(*SMALL, *STAGES[0].split(), "run.name=measured")
    return time.monotonic() - begun


@pytest.mark.soak
@pytest.mark.parametrize(("victim", "number"), MOMENTS, ids=[f"{'all' if rank is None else rank}-{number}" for rank, number in MOMENTS])
def test_killed_at_any_moment_it_goes_on_to_the_same_bits(
    runs: ForkedRuns, undisturbed: dict, length: float, victim: int | None, number: int
) -> None:
    """All ranks, or one alone: twice in a row, so that the second may hit what the first has left."""
    stage, draw, name = STAGES[number % len(STAGES)], random.Random(f"{number} {victim}"), f"random_{number}_{victim}"
    command = *SMALL, *stage.split(), f"run.name={name}", "launch.rendezvous_timeout_seconds=10"
    for _ in range(2):
        moment = draw.uniform(0, length)
        killed = runs.run(*command, kill=(moment, victim))
        print(f"killed after {moment:.2f} of {length:.2f} s: {killed.codes}")
        assert "Traceback" not in killed.said, killed.said
    ended = runs.run(*command)
    assert ended.codes == [0, 0], ended.said
    assert_same_end(RunFolder(runs.folder / "runs" / name), undisturbed[stage])
