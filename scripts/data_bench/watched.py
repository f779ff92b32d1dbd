"""Runs a command and watches the memory of all its processes together."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_SAMPLE_SECONDS = 0.1


@dataclass(frozen=True)
class Watched:
    """What a command did.

    Attributes:
        seconds: from its start until it was done: to the line of JSON where it says one, else to its exit.
        peak_bytes: the largest memory (PSS) of all its processes together until then, looked at ten times a second.
        said: its line of JSON, else nothing.
    """

    seconds: float
    peak_bytes: int
    said: dict[str, Any]


def watch(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Watched:
    """Run a command to its end; what it says on stderr is shown. Raises CalledProcessError where it fails."""
    begun = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
    peak, done = [0], threading.Event()
    watcher = threading.Thread(target=_look_at_memory, args=(process.pid, peak, done))
    watcher.start()
    said, seconds = {}, None
    for line in process.stdout:
        if line.startswith("{"):
            said, seconds = json.loads(line), time.perf_counter() - begun
            done.set()
    code = process.wait()
    seconds = seconds or time.perf_counter() - begun
    done.set()
    watcher.join()
    if code:
        raise subprocess.CalledProcessError(code, process.args)
    return Watched(seconds, peak[0], said)


def _look_at_memory(pid: int, peak: list[int], done: threading.Event) -> None:
    while not done.wait(_SAMPLE_SECONDS):
        try:
            processes = [parent := psutil.Process(pid), *parent.children(recursive=True)]
        except psutil.Error:
            return
        total = 0
        for process in processes:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:  # it has just ended
                continue
        peak[0] = max(peak[0], total)
