"""Where the time goes from the command to the end of its first step.

Each `mark` puts what has passed since the one before it down to a part, so that the parts add up to the whole. The clock begins with the
process that the command started; one that starts the ranks hands its marks to them in an environment variable.
"""

import gc
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

_VARIABLE = "PRETRAIN_STARTUP"


@dataclass
class _Marks:
    last_at: float
    """Seconds since this machine was booted, the same clock in all its processes."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By part, in the order in which they began."""

    def add(self, part: str) -> None:
        now = _now()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self.last_at
        self.last_at = now


_marks: _Marks | None = None
_finished = False


def mark(part: str) -> None:
    """What has passed since the last mark went into `part`. Does nothing once the first step is over."""
    if not _finished:
        _current().add(part)


@contextmanager
def imports() -> Iterator[None]:
    """For a block of heavy imports, marked as such. What they make stays: the garbage collector, which would look through it again and
    again for nothing, waits, and leaves it alone ever after."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    gc.freeze()
    mark("imports")


def for_ranks() -> dict[str, str]:
    """Environment variables for processes that this one is about to start, which go on with its marks."""
    return {_VARIABLE: json.dumps(asdict(_current()))}


def finish(part: str) -> dict[str, float] | None:
    """The last mark: seconds by part, from the command on; None where it has been made before."""
    global _finished
    if _finished:
        return None
    mark(part)
    _finished = True
    return _current().seconds


def describe(seconds: dict[str, float]) -> str:
    """What `finish` returned, for the user: `first step begun 7.9 s and done 8.2 s after the command: imports 3.1, ...`, without the parts
    that took no time to speak of."""
    total, last = sum(seconds.values()), list(seconds.values())[-1]
    parts = ", ".join(f"{part.replace('_', ' ')} {value:.1f}" for part, value in seconds.items() if value >= 0.05)
    return f"first step begun {total - last:.1f} s and done {total:.1f} s after the command: {parts}"


def _current() -> _Marks:
    global _marks
    if _marks is None:
        handed = os.environ.pop(_VARIABLE, None)
        _marks = _Marks(**json.loads(handed)) if handed else _Marks(_process_began_at())
    return _marks


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _process_began_at() -> float:
    """On the clock of `_now`, to a hundredth of a second (proc(5), field 22 of stat)."""
    ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    return int(ticks) / os.sysconf("SC_CLK_TCK")
