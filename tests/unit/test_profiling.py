"""The window of steps that is traced, and no other."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from pretrain.profiling import StepProfiler


def traced(path: Path) -> set[str]:
    """The marks of the steps in a trace."""
    events = json.loads(gzip.open(path).read())["traceEvents"]
    return {event["name"] for event in events if event["name"].startswith("step ")}


def take_steps(profiler: StepProfiler, numbers: list[int]) -> None:
    for number in numbers:
        with profiler.step(number), torch.profiler.record_function(f"step {number}"):
            torch.ones(3).sum()


@pytest.mark.parametrize(
    ("numbers", "name", "inside"),
    [
        ([1, 2, 3, 4, 5], "trace_rank0_steps_2_3.json.gz", {"step 2", "step 3"}),
        ([3, 4], "trace_rank0_steps_3_3.json.gz", {"step 3"}),  # resumed within the window
        ([1, 2, 2, 3, 4], "trace_rank0_steps_2_3.json.gz", {"step 2", "step 3"}),  # one was skipped
    ],
    ids=["whole", "resumed", "skipped"],
)
def test_the_window_and_nothing_else_is_traced(tmp_path: Path, numbers: list[int], name: str, inside: set[str]):
    said: list[str] = []
    take_steps(StepProfiler([2, 3], tmp_path / "profile", 0, said.append), numbers)
    (path,) = (tmp_path / "profile").iterdir()
    assert path.name == name and traced(path) == inside
    assert len(said) == 1 and str(path) in said[0] and "ui.perfetto.dev" in said[0]


@pytest.mark.parametrize(("steps", "numbers"), [([], [1, 2]), ([2, 3], [4, 5])], ids=["off", "behind"])
def test_without_a_window_nothing_is_written(tmp_path: Path, steps: list[int], numbers: list[int]):
    take_steps(StepProfiler(steps, tmp_path / "profile", 0, print), numbers)
    assert not list(tmp_path.iterdir())
