"""SIGTERM and Ctrl-C to the command itself: at start-up, in the middle of a preparation, and while it trains on two ranks of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pretrain.metrics import read_metrics
from pretrain.run_folder import RunFolder
from tests.distributed.test_layout_invariance import write_corpus
from tests.forked_runs import SMALL
from tests.launchers import REPOSITORY

COMMAND = [sys.executable, "-m", "pretrain", *SMALL, "train.num_steps=400", "train.log_every_steps=1", "train.checkpoint_every_steps=100"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_corpus(folder / "corpus.txt")
    (folder / "larger.txt").write_text("\n\n".join(f"{(folder / 'corpus.txt').read_text()} {number}" for number in range(300)))
    return folder


@contextmanager
def running(folder: Path, *settings: str) -> Iterator[subprocess.Popen]:
    """The command, in a session of its own as on a terminal of its own; afterwards nothing of it is left."""
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [*COMMAND, *settings],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=said,
            stderr=said,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs ignore it
        )
        try:
            yield process
            deadline = time.monotonic() + 20
            while (left := members(process.pid)) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not left
        finally:
            for pid in members(process.pid):
                os.kill(pid, signal.SIGKILL)


def members(session: int) -> list[int]:
    """The processes of a session that are not dead."""
    found = []
    for process in psutil.process_iter(["pid", "status"]):
        try:
            if os.getsid(process.pid) == session and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except ProcessLookupError:
            pass
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def hears(process: subprocess.Popen) -> bool:
    """Whether it has a handler for SIGTERM."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def stop(folder: Path, process: subprocess.Popen, number: int) -> str:
    """Send a signal, to the whole terminal where it is Ctrl-C; what was said until the end, which must be exit code 85."""
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    assert process.wait(30) == 85, (folder / "said").read_text()
    said = (folder / "said").read_text()
    assert "Traceback" not in said and "error:" not in said
    return said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_at_start_up(folder: Path, number: int) -> None:
    with running(folder, "run.name=start") as process:
        wait_until(lambda: hears(process))
        assert stop(folder, process, number) == ""
    assert not (folder / "runs" / "start").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_middle_of_a_preparation(folder: Path, number: int) -> None:
    cache = f"cache_{number}"
    with running(folder, "run.name=prepared", "data.paths=[larger.txt]", f"data.cache_dir={cache}") as process:
        wait_until(lambda: any(folder.glob(f"{cache}/*.part/*/*")))
        said = stop(folder, process, number)
        assert "preparing 1 source files" in said and "documents from" not in said
    assert not (folder / "runs" / "prepared").exists()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT])
def test_while_it_trains(folder: Path, number: int) -> None:
    run = RunFolder(folder / "runs" / f"training_{number}")
    with running(folder, f"run.name={run.path.name}") as process:
        wait_until(lambda: "step 3/" in (folder / "said").read_text())
        said = stop(folder, process, number)
    # SIGTERM is what the launcher sends to its ranks, whatever it was sent.
    assert "SIGTERM: stopping after this step, with a checkpoint; a second one ends the run at once" in said
    newest = run.latest_checkpoint()
    assert newest is not None
    lines = read_metrics(run.metrics)
    assert (lines[-1]["kind"], lines[-1]["step"]) == ("stop", int(newest.name[5:]))
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    assert steps == list(range(1, int(newest.name[5:]) + 1)) and 3 <= len(steps) < 400
    assert f"stopped on request after step {len(steps)}; the same command goes on from there" in said
