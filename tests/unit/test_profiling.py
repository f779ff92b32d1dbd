"""The window of steps that is traced, and no other."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from pretrain.profiling import MemorySnapshot, StepProfiler


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


def test_a_memory_snapshot_is_of_its_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In the order in which PyTorch is asked; there is no GPU here to ask."""
    asked: list = []
    monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", lambda enabled="all", **limits: asked.append(enabled))
    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", lambda path: asked.append(Path(path).name))
    said: list[str] = []
    snapshot = MemorySnapshot([2, 3], tmp_path / "profile", 0, said.append)
    for number in (1, 2, 3, 4):
        with snapshot.step(number):
            asked.append(number)
    assert asked == [1, "all", 2, 3, "memory_snapshot_rank0_steps_2_3.pickle", None, 4]
    assert len(said) == 1 and "memory snapshot of steps 2 to 3" in said[0] and "pytorch.org/memory_viz" in said[0]


@pytest.mark.parametrize(("steps", "numbers"), [([], [1, 2]), ([2, 3], [4, 5])], ids=["off", "behind"])
def test_without_a_window_nothing_is_written(tmp_path: Path, steps: list[int], numbers: list[int]):
    take_steps(StepProfiler(steps, tmp_path / "profile", 0, print), numbers)
    assert not list(tmp_path.iterdir())
