"""`logs/rank_<R>.log` in the run folder: what each rank says, appended over restarts; `stacks_rank_<R>.txt`: where it was when it hung.

Rank 0 speaks on the terminal as ever, and its log has what the harness and Python's logging say. Of the other ranks everything goes to
their logs, native libraries' output included: to a temporary file until the run folder is this run's, then to the log.
"""

import contextlib
import faulthandler
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import IO, TextIO

logger = logging.getLogger("pretrain")

_rank = 0
_terminal: TextIO | None = None
_early: IO[bytes] | None = None
_stacks: TextIO | None = None


def begin(rank: int) -> None:
    """Take the terminal away from every rank but 0."""
    global _rank, _terminal, _early
    _rank = rank
    if rank == 0 or _early is not None:
        return
    _terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w")
    _early = tempfile.TemporaryFile()
    _redirect(_early.fileno())


def open_log(folder: Path, world_size: int) -> None:
    """Go on in `folder`, with a line that says when, where and as what this process began."""
    folder.mkdir(parents=True, exist_ok=True)
    _open_stacks(folder / f"stacks_rank_{_rank}.txt")
    path = folder / f"rank_{_rank}.log"
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    with path.open("a") as log:
        log.write(f"--- {now} {socket.gethostname()} pid {os.getpid()} rank {_rank} of {world_size}\n")
    logging.getLogger("pretrain").setLevel(logging.INFO)
    root = logging.getLogger()
    if _early is None:
        if not root.handlers and logging.lastResort is not None:
            root.addHandler(logging.lastResort)  # warnings stay on the terminal
        root.addHandler(logging.FileHandler(path))
        return
    with path.open("ab", buffering=0) as log:
        flush()
        _early.seek(0)
        shutil.copyfileobj(_early, log)
        _redirect(log.fileno())
    root.addHandler(logging.StreamHandler(sys.stderr))
    logging.getLogger("came").setLevel(logging.INFO)  # rank 0's recorder says this


def _open_stacks(path: Path) -> None:
    """From now on SIGQUIT (Ctrl-\\) writes there where each thread of this process is, whatever it waits for; so does a crash, as NCCL's at
    a timeout."""
    global _stacks
    _stacks = path.open("a")
    faulthandler.register(signal.SIGQUIT, file=_stacks, all_threads=True)
    faulthandler.enable(_stacks, all_threads=True)


def dump_stacks(reason: str) -> None:
    """Write why, and where each thread of this process is."""
    if _stacks is not None:
        with contextlib.suppress(OSError):
            print(f"--- {datetime.now().astimezone().isoformat(timespec='seconds')} {reason}", file=_stacks, flush=True)
            faulthandler.dump_traceback(_stacks, all_threads=True)


def tell_user(text: str) -> None:
    """A line or more on the terminal, also from a rank that has lost it."""
    print(text, file=_terminal or sys.stderr, flush=True)


def flush() -> None:
    """Before a process ends without Python's farewell."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()


def _redirect(descriptor: int) -> None:
    flush()
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
