"""The launcher of a sweep where none is chosen: one run after another on this machine, each in a process of its own."""

from collections.abc import Mapping
from pathlib import Path

from pretrain.exit_codes import STOPPED_ON_REQUEST
from pretrain.sweep import child


def run_one_by_one(files: Mapping[str, Path]) -> dict[str, int]:
    """The exit codes by name of the runs that were started: all of them, unless one stopped on request."""
    codes: dict[str, int] = {}
    for number, (name, file) in enumerate(files.items(), start=1):
        print(f"run {number} of {len(files)}: {name}", flush=True)
        codes[name] = child.run(file)
        if codes[name] == STOPPED_ON_REQUEST:
            break
    return codes
