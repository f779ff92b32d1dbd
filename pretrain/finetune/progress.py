"""How far one fine-tuning has come: a bar on a terminal, a plain line now and then elsewhere. Both go to stderr."""

import sys
import time
from typing import Any

_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Counts updates; a context manager."""

    def __init__(self, title: str, num_steps: int) -> None:
        self._title, self._num_steps, self._done = title, num_steps, 0
        self._bar: Any = None
        self._last_line_seconds = time.monotonic()

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(desc=self._title, total=self._num_steps, unit="step", leave=False)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, loss: float) -> None:
        """One more update is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self._bar.update()
        elif time.monotonic() - self._last_line_seconds >= _SECONDS_BETWEEN_LINES:
            self._last_line_seconds = time.monotonic()
            print(f"{self._title}: update {self._done:,} of {self._num_steps:,}, loss {loss:.4f}", file=sys.stderr, flush=True)
