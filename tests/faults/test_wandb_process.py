"""The process that feeds Weights & Biases, in whole runs: it may be killed, and the key that it is given is nowhere to be found."""

import base64
import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from pretrain import sync
from pretrain.errors import UserError
from pretrain.metrics import read_metrics
from pretrain.report.reading import read_runs
from pretrain.report.run import KILLED
from pretrain.report.wandb_file import WandbFile
from tests.faults.fault_points import in_the_middle_of_a_step, on_call, wrap
from tests.forked_runs import SMALL, ForkedRuns
from tests.wandb_records import recorded, rows, rows_of
from tests.wandb_server import Server

SETTINGS = (*SMALL, "tracker=wandb")
KEYS = {"environment": "5ec7e7" * 8, "netrc": "c0ffee" * 8}


def kill_the_follower() -> None:
    from pretrain.engine import Engine

    def kill() -> None:
        (follower,) = (child for child in psutil.Process().children() if "wandb_follower" in " ".join(child.cmdline()))
        os.kill(follower.pid, signal.SIGKILL)

    wrap(Engine, "step", before=on_call(4, kill))


def _is_closed(file: Path) -> bool:
    try:
        return WandbFile(file).closed
    except UserError:  # it has only been made
        return False


def test_training_goes_on_without_it(runs: ForkedRuns, folder: Path) -> None:
    ended = runs.run(*SETTINGS, "run.name=killed", ranks=1, fault=kill_the_follower)
    assert ended.codes == [0], ended.said
    warnings = [line for line in ended.said.splitlines() if line.startswith("warning")]
    assert warnings == ["warning: Weights & Biases ended with exit code -9; going on without it, metrics.jsonl has everything"]
    lines = read_metrics(folder / "runs" / "killed" / "metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 9)) and lines[-1]["kind"] == "end"


def test_a_report_on_a_run_that_was_killed_shows_all_that_it_logged(runs: ForkedRuns, folder: Path) -> None:
    """kill -9 in the middle of step 5, from metrics.jsonl and from W&B's offline file alike."""
    assert runs.run(*SETTINGS, "run.name=cut", ranks=1, fault=in_the_middle_of_a_step).codes == [-signal.SIGKILL]
    run = folder / "runs" / "cut"
    deadline = time.monotonic() + 30
    while not any(_is_closed(file) for file in run.glob("wandb/offline-run-*/run-*.wandb")):  # the follower hears of the end by its input's
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ours, theirs = read_runs([run, run / "wandb"])
    assert theirs.state == KILLED
    for found in (ours, theirs):
        assert found.train.axes["step"].tolist() == [1, 2, 3, 4] and found.evals.axes["step"].tolist() == [4]
    for name, values in ours.train.metrics.items():
        assert np.array_equal(values, theirs.train.metrics[name], equal_nan=True), name
    assert ours.evals.last("loss") == theirs.evals.last("loss")


def test_the_key_is_nowhere(runs: ForkedRuns, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Not in a file of the run, on the terminal or in an error, of a server that had both keys and refused them, or of W&B itself."""
    home = folder / "home"
    home.mkdir()
    run = folder / "runs" / "secret"
    with Server(refusing=True).running() as server:
        (home / ".netrc").write_text(f"machine {server.url.removeprefix('http://')}\n  login user\n  password {KEYS['netrc']}\n")
        variables = {"WANDB_API_KEY": KEYS["environment"], "WANDB_BASE_URL": server.url, "HOME": str(home)}
        ended = runs.run(*SETTINGS, "run.name=secret", "tracker.mode=online", ranks=1, **variables)
        assert ended.codes == [0] and "is not online (" in ended.said, ended.said
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("NETRC", raising=False)
        assert sync.main([str(run), "--offline"]) == 0
        assert sync.main([str(run)]) == 2
        sync._give_up()
        monkeypatch.delenv("WANDB_API_KEY")
        assert sync.main([str(run)]) == 2
        sync._give_up()
        monkeypatch.setenv("WANDB_API_KEY", KEYS["environment"] + "\N{EURO SIGN}")
        assert sync.main([str(run)]) == 2
        sync._give_up()
    said = [ended.said, *capfd.readouterr()]
    assert server.authorizations == {f"Basic {base64.b64encode(f'api:{key}'.encode()).decode()}" for key in KEYS.values()}
    for records in recorded(run):
        assert rows(records) == rows_of(read_metrics(run / "metrics.jsonl"))
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) > 20
    for key in KEYS.values():
        for form in (key, base64.b64encode(f"api:{key}".encode()).decode()):
            assert not [path for path in files if form.encode() in path.read_bytes()]
            assert not [text for text in said if form in text]
