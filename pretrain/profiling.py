"""`train.profile_steps=[10,13]`: a torch-profiler trace of those steps, for Perfetto or Chrome."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_HOW_TO_OPEN = "open it at https://ui.perfetto.dev or as chrome://tracing"


class StepProfiler:
    """Records a window of steps, both ends included; outside the window it does nothing.

    CPU activities, and the GPU's where there is one. The trace is `trace_rank<R>_steps_<first>_<last>.json.gz` in `folder`. A run that
    is resumed within the window records the rest of it; a skipped step counts as the step that it would have been.
    """

    def __init__(self, steps: list[int], folder: Path, rank: int, say: Callable[[str], None]) -> None:
        """`steps` is [first, last], in the run's own count, or empty; `say` is told where the trace lies."""
        self._first, self._last = steps or (0, -1)
        self._folder, self._rank, self._say = folder, rank, say
        self._recording: Any = None

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """The block is step `number`."""
        if self._recording is None and self._first <= number <= self._last:
            self._first = number
            self._begin()
        yield
        if self._recording is not None and number == self._last:
            self._write()

    def _begin(self) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # its notes on starting and stopping
        from torch import profiler

        self._recording = profiler.profile(activities=profiler.supported_activities())
        self._recording.start()

    def _write(self) -> None:
        self._recording.stop()
        path = self._folder / f"trace_rank{self._rank}_steps_{self._first}_{self._last}.json.gz"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._recording.export_chrome_trace(str(path))
        self._say(f"trace of steps {self._first} to {self._last} in {path}; {_HOW_TO_OPEN}")
        self._recording, self._last = None, -1
