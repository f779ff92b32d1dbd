"""Where a step's time goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up the seconds of named parts until they are read; parts may lie inside each other.

    `earlier_seconds` is what the run took before this process.
    """

    def __init__(self, earlier_seconds: float = 0.0) -> None:
        self._begun = time.perf_counter() - earlier_seconds
        self._seconds: dict[str, float] = {}
        self._times: dict[str, int] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time the block as `part`."""
        begun = time.perf_counter()
        yield
        self._seconds[part] = self._seconds.get(part, 0.0) + time.perf_counter() - begun
        self._times[part] = self._times.get(part, 0) + 1

    @property
    def wall_seconds(self) -> float:
        """Since the run began, earlier processes included."""
        return time.perf_counter() - self._begun

    def read(self) -> dict[str, float]:
        """Mean seconds of each part since the last reading, under `<part>_seconds`."""
        means = {f"{part}_seconds": total / self._times[part] for part, total in self._seconds.items()}
        self._seconds, self._times = {}, {}
        return means
