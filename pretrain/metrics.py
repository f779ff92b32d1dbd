"""metrics.jsonl: what happened in a run, one JSON object per line, appended and never rewritten.

Each line has a `kind`: start, train, eval, checkpoint, skip, resume or end. A `resume` line at step k supersedes every earlier line
with a greater step; `read_metrics` applies that, and every reader goes through it.
"""

import json
import math
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class MetricsWriter:
    """Appends lines; each is in the file when `write` returns."""

    def __init__(self, path: Path) -> None:
        torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        self._file = path.open("a", encoding="utf-8")
        if torn:  # the process that wrote last was killed in the middle of a line: readers drop it
            self._file.write("\n")
            self._file.flush()

    def write(self, kind: str, **values: Any) -> Line:
        """Append one line and return it; numbers that are not finite become null, which JSON has instead."""
        line = {"kind": kind, **{name: _plain(value) for name, value in values.items()}}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        return line

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[Line]:
    """The lines that stand, oldest first: without what a later `resume` superseded and without a torn last line."""
    lines: list[Line] = []
    if not path.exists():
        return lines
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if line["kind"] == "resume":
            lines = [earlier for earlier in lines if earlier.get("step", 0) <= line["step"]]
        lines.append(line)
    return lines


def last(lines: list[Line], kind: str) -> Line | None:
    """The newest line of a kind."""
    return next((line for line in reversed(lines) if line["kind"] == kind), None)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
