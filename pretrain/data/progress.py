"""How far a long pass over the text has come: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from typing import Any

_SECONDS_BETWEEN_LINES = 5.0
_LEAST_SHARE = 0.005
"""What has been done before that says nothing of what is left."""


class Progress:
    """Counts bytes of a pass over the sources, or something else; a context manager.

    Args:
        title: what is being done, for example "tokenizing".
        total: what there is to read; 0 where nobody knows.
        shown: False prints nothing at all.
        unit: what is counted.
    """

    def __init__(self, title: str, total: int, shown: bool = True, unit: str = "B") -> None:
        self.title, self.total, self.shown, self.unit = title, total, shown, unit
        self.done = 0
        self._bar: Any = None
        self._begun_seconds = self._last_line_seconds = time.monotonic()

    def __enter__(self) -> "Progress":
        if self.shown and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(desc=self.title, total=self.total or None, unit=self.unit, unit_scale=True, leave=False)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, number: int) -> None:
        """So many more are done."""
        self.done += number
        if self._bar is not None:
            self._bar.update(number)
        elif self.shown and time.monotonic() - self._last_line_seconds >= _SECONDS_BETWEEN_LINES:
            self._last_line_seconds = time.monotonic()
            print(f"{self.title}: {self._state()}", file=sys.stderr, flush=True)

    def _state(self) -> str:
        done, total = (f"{number / 1e6:.1f}" if self.unit == "B" else f"{number:,}" for number in (self.done, self.total))
        unit = "MB" if self.unit == "B" else self.unit
        if not self.total:
            return f"{done} {unit}"
        share = min(self.done / self.total, 1.0)
        state = f"{done} of {total} {unit} ({share:.0%})"
        if share < _LEAST_SHARE:
            return state
        return f"{state}, about {_duration((time.monotonic() - self._begun_seconds) * (1 / share - 1))} left"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
