"""metrics.jsonl: what happened in a run, one JSON object per line, appended and never rewritten.

Each line has a `kind`: start, startup, memory, train, eval, checkpoint, skip, resume, stop (on request) or end. Of a `memory` line each
value in bytes is a list over the ranks. A `resume` line supersedes every earlier line of a later point of the run, by its `samples` (or,
where it has none, its `step`); `standing` applies that, and every reader goes through it.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pretrain.plain_json import without_nan

logger = logging.getLogger("pretrain")

Line = dict[str, Any]


class MetricsWriter:
    """Appends lines; each is in the file when `write` returns, or, where the disk is full or the file gone, as soon as it can be.

    Lines that could not be written wait in memory, in their order, for the next one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _open(path)
        # The process that wrote last may have been killed in the middle of a line: readers drop it.
        self._waiting = b"\n" if _is_torn(path) else b""
        self._trouble: str | None = None

    def write(self, kind: str, **values: Any) -> Line:
        """Append one line and return it; numbers that are not finite become null, which JSON has instead."""
        line = {"kind": kind, **without_nan(values)}
        self._waiting += json.dumps(line).encode() + b"\n"
        self._try_to_write()
        return line

    def close(self) -> None:
        """Raises OSError where lines are still waiting."""
        self._try_to_write()
        os.close(self._file)
        if self._waiting:
            raise OSError(f"{self._path} could not be written ({self._trouble}): its last {self._waiting.count(10)} lines are lost")

    def _try_to_write(self) -> None:
        try:
            if not self._path.exists():  # removed, perhaps with its folder
                self._path.parent.mkdir(parents=True, exist_ok=True)
                os.close(self._file)
                self._file = _open(self._path)
            while self._waiting:
                self._waiting = self._waiting[os.write(self._file, self._waiting) :]
        except OSError as error:
            if self._trouble is None:
                logger.warning("warning: %s cannot be written (%s); its lines wait in memory", self._path, error.strerror)
            self._trouble = error.strerror
        else:
            if self._trouble is not None:
                logger.warning("%s can be written again; no line is missing", self._path)
            self._trouble = None


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def _is_torn(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return size > 0 and file.read() != b"\n"


def read_metrics(path: Path) -> list[Line]:
    """The lines that stand, oldest first: without what a later `resume` superseded and without a torn last line."""
    return [line for _, line in read_numbered(path)]


def read_numbered(path: Path) -> list[tuple[int, Line]]:
    """`read_metrics`, each line with its number in the file, from 0: it stays that line's for good, whatever is appended."""
    written = list(_whole_lines(path)) if path.exists() else []
    stand = set(map(id, standing(line for _, line in written)))
    return [(number, line) for number, line in written if id(line) in stand]


def standing(written: Iterable[Line]) -> list[Line]:
    """Of lines in the order of their writing, those that no later `resume` superseded."""
    lines: list[Line] = []
    for line in written:
        if line["kind"] == "resume":
            by = "samples" if "samples" in line else "step"
            lines = [earlier for earlier in lines if earlier.get(by, 0) <= line[by]]
        lines.append(line)
    return lines


def _whole_lines(path: Path) -> Iterator[tuple[int, Line]]:
    for number, text in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n")):
        try:
            yield number, json.loads(text)
        except json.JSONDecodeError:
            continue


def last(lines: list[Line], kind: str) -> Line | None:
    """The newest line of a kind."""
    return next((line for line in reversed(lines) if line["kind"] == kind), None)
