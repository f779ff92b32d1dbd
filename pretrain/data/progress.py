"""How far a long pass over the text has come: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from typing import Any

_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Counts bytes of a pass over the sources; a context manager.

    Args:
        title: what is being done, for example "tokenizing".
        total_bytes: what there is to read.
        shown: False prints nothing at all.
    """

    def __init__(self, title: str, total_bytes: int, shown: bool = True) -> None:
        self.title, self.total_bytes, self.shown = title, total_bytes, shown
        self.done_bytes = 0
        self._bar: Any = None
        self._last_line_seconds = time.monotonic()

    def __enter__(self) -> "Progress":
        if self.shown and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(desc=self.title, total=self.total_bytes, unit="B", unit_scale=True, leave=False)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, num_bytes: int) -> None:
        """So many more bytes are read."""
        self.done_bytes += num_bytes
        if self._bar is not None:
            self._bar.update(num_bytes)
        elif self.shown and time.monotonic() - self._last_line_seconds >= _SECONDS_BETWEEN_LINES:
            self._last_line_seconds = time.monotonic()
            megabytes, total = self.done_bytes / 1e6, self.total_bytes / 1e6
            print(f"{self.title}: {megabytes:.1f} of {total:.1f} MB ({megabytes / max(total, 1e-9):.0%})", file=sys.stderr, flush=True)
