"""What the ranks of test_spawn.py do: functions that a new process can import."""

import os
import signal
import time
from pathlib import Path

from pretrain import stopping
from pretrain.errors import UserError

if "EARLY_SIGNAL" in os.environ:
    os.kill(os.getpid(), signal.Signals[os.environ["EARLY_SIGNAL"]])  # a rank imports this before it does anything else


def note(folder: Path) -> int:
    unfinished = folder / f"unfinished{os.environ['RANK']}"
    unfinished.write_text(f"{os.getpid()} {os.environ['COLOUR']}")
    unfinished.rename(folder / f"rank{os.environ['RANK']}")
    return 0


def stop_on_request(folder: Path) -> int:
    """Rank 1 takes its time over the checkpoint."""
    time.sleep(1.0 if os.environ["RANK"] == "1" else 0.0)
    note(folder)
    return 85


def user_error_on_rank_1(folder: Path) -> int:
    return _others_wait(folder, UserError("the vocabulary does not fit"))


def user_error_on_rank_0_seen_by_rank_1_as_a_lost_peer(folder: Path) -> int:
    if os.environ["RANK"] == "1":
        raise ConnectionError("closed by peer")
    time.sleep(0.3)
    raise UserError("the settings differ")


def fault_on_rank_1(folder: Path) -> int:
    return _others_wait(folder, ZeroDivisionError("a fault"))


def killed_on_rank_1(folder: Path) -> int:
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return _others_wait(folder, ZeroDivisionError())


def frozen_on_rank_0_and_aborted_on_rank_1(folder: Path) -> int:
    """As NCCL ends a rank that has waited for another for too long."""
    if os.environ["RANK"] == "0":
        note(folder)
        os.kill(os.getpid(), signal.SIGSTOP)
    deadline = time.monotonic() + 60
    while not (folder / "rank0").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.abort()


def wait_for_ever(folder: Path) -> int:
    note(folder)
    time.sleep(600)
    return 0


def wait_for_ever_held(folder: Path) -> int:
    """Where a request is noted, and nothing comes of it."""
    with stopping.held():
        note(folder)
        while not stopping.requested():
            time.sleep(0.05)
        (folder / f"asked{os.environ['RANK']}").touch()
        time.sleep(600)
    return 0


def ignore_sigterm(folder: Path) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return _others_wait(folder, UserError("stop"))


def _others_wait(folder: Path, error: Exception) -> int:
    if os.environ["RANK"] == "1":
        deadline = time.monotonic() + 60
        while not (folder / "rank0").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        raise error
    return wait_for_ever(folder)
