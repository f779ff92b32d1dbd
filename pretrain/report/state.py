"""How a run stands, from its last lines and from whether somebody still writes them."""

import time
from pathlib import Path

from pretrain.metrics import Line
from pretrain.report.run import DIVERGED, FINISHED, KILLED, RUNNING, STOPPED

_QUIET_SECONDS = 60.0
"""A file that was written to more lately belongs to a run that is going on, wherever its process may be."""
_QUIET_GAPS = 3.0
"""Or so many times the longest pause that the run itself has made between two lines."""


def state_of(lines: list[Line], written: Path, lock: Path | None = None, closed: bool = False) -> str:
    """`lines` are those that stand in `written`; the process that trains holds `lock`; `closed`: the file says that its writer ended."""
    telling = next((line for line in reversed(lines) if line["kind"] != "checkpoint"), {"kind": "nothing"})
    if telling["kind"] == "end":
        return DIVERGED if telling.get("diverged") else FINISHED
    if telling["kind"] == "stop":
        return STOPPED
    if closed:
        return KILLED
    return RUNNING if (lock is not None and is_held(lock)) or _is_fresh(written, lines) else KILLED


def is_held(lock: Path) -> bool:
    """Whether another process has it; asks for a shared lock, which is given back at once."""
    try:
        import fcntl

        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, ImportError):
        return False
    return False


def _is_fresh(written: Path, lines: list[Line]) -> bool:
    seconds = [line["wall_seconds"] for line in lines if line.get("wall_seconds") is not None]
    longest = max((later - earlier for earlier, later in zip(seconds, seconds[1:], strict=False)), default=0.0)
    return time.time() - written.stat().st_mtime < max(_QUIET_SECONDS, _QUIET_GAPS * longest)
