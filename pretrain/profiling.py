"""A window of steps that is recorded for a viewer: `train.profile_steps=[10,13]` writes a torch-profiler trace for Perfetto or Chrome,
`train.memory_snapshot_steps=[10,13]` the GPU's allocations for PyTorch's memory viewer."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

_MOST_EVENTS = 1_000_000
"""Allocations and releases that a memory snapshot remembers; older ones are dropped."""


class StepWindow(ABC):
    """Records a window of steps, both ends included; outside the window it does nothing.

    What was recorded is `<name>_rank<R>_steps_<first>_<last>.<suffix>` in `folder`. A run that is resumed within the window records the
    rest of it; a skipped step counts as the step that it would have been.
    """

    name: str
    suffix: str
    how_to_open: str

    def __init__(self, steps: list[int], folder: Path, rank: int, say: Callable[[str], None]) -> None:
        """`steps` is [first, last], in the run's own count, or empty; `say` is told where the file lies."""
        self._first, self._last = steps or (0, -1)
        self._folder, self._rank, self._say = folder, rank, say
        self._recording = False

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """The block is step `number`."""
        if not self._recording and self._first <= number <= self._last:
            self._first, self._recording = number, True
            self.begin()
        yield
        if self._recording and number == self._last:
            self._recording = False
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{self.name}_rank{self._rank}_steps_{self._first}_{self._last}.{self.suffix}"
            self.end(path)
            self._say(f"{self.name.replace('_', ' ')} of steps {self._first} to {self._last} in {path}; open it {self.how_to_open}")
            self._last = -1

    @abstractmethod
    def begin(self) -> None:
        """Begin to record."""

    @abstractmethod
    def end(self, path: Path) -> None:
        """Stop, and write what was recorded."""


class StepProfiler(StepWindow):
    """CPU activities, and the GPU's where there is one."""

    name, suffix, how_to_open = "trace", "json.gz", "at https://ui.perfetto.dev or as chrome://tracing"

    def begin(self) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # its notes on starting and stopping
        from torch import profiler

        self._profile: Any = profiler.profile(activities=profiler.supported_activities())
        self._profile.start()

    def end(self, path: Path) -> None:
        self._profile.stop()
        self._profile.export_chrome_trace(str(path))


class MemorySnapshot(StepWindow):
    """What lay on the GPU when the window ended and, back to its beginning, every allocation and release with the lines of Python that
    made it. Needs a GPU."""

    name, suffix, how_to_open = "memory_snapshot", "pickle", "at https://pytorch.org/memory_viz"

    def begin(self) -> None:
        torch.cuda.memory._record_memory_history(max_entries=_MOST_EVENTS, stacks="python")

    def end(self, path: Path) -> None:
        torch.cuda.memory._dump_snapshot(str(path))
        torch.cuda.memory._record_memory_history(enabled=None)
