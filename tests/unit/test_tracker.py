"""Weights & Biases beside a run: it gets every number of metrics.jsonl, and whatever it does, the run neither fails nor waits."""

import json
import logging
import os
import re
import signal
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from pretrain import tracker as tracker_module
from pretrain.config.compose import compose
from pretrain.metrics import MetricsWriter, read_metrics
from pretrain.run_folder import RunFolder
from pretrain.tracker import Tracker, WandbTracker, make_tracker
from pretrain.wandb_follower import Alerts
from tests.wandb_records import recorded, rows, rows_of, steps
from tests.wandb_server import Server

FACTS = {"plan": {"parameters": 12}, "versions": {"torch": "9.9"}, "git": {"commit": "abc", "dirty": True}}
AXES_OF_STEP_1 = {"step": 1, "samples": 8, "tokens": 64, "wall_seconds": 0.5}
STAND_IN = """
    import json, os, sys, time

    fault = os.environ["FAULT"]
    if fault == "import":
        raise ImportError("half installed")
    print("wandb: hello"); print("wandb: hello", file=sys.stderr); os.system("echo hello from the service")

    class Settings(dict):
        model_fields = ("console", "silent")

    class Api:
        api_key = os.environ.get("LOGGED_IN_KEY")

    api = Api()

    def teardown():
        pass

    def init(**settings):
        with open(os.environ["INITS"], "a") as file:
            file.write(json.dumps(settings) + "\\n")
        if fault == "init" or (fault == "unreachable" and settings["mode"] == "online"):
            raise RuntimeError("no route\\n  to host")
        return Run()

    class Run:
        dir = "there/run-1/files"
        starting_step = 0

        def define_metric(self, *names, **options):
            pass

        def log(self, values, step, commit):
            if fault == "log":
                raise RuntimeError("lost")
            if fault == "crash":
                os._exit(7)
            if fault == "hang":
                time.sleep(1000)

        def finish(self, exit_code):
            if fault == "upload":
                raise TimeoutError
"""


class TrackedRun:
    """A run folder, its metrics.jsonl and a tracker that follows it."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        config = compose([f"run.dir={folder}", "run.name=it", "tracker=wandb", *overrides])
        self.folder = RunFolder.of(config)
        self.folder.path.mkdir(exist_ok=True)
        self.writer = MetricsWriter(self.folder.metrics)
        self.tracker: Tracker = make_tracker(config, self.folder, FACTS)

    def write(self, kind: str, **values: Any) -> None:
        self.writer.write(kind, **values)
        self.tracker.check()

    def write_some(self) -> None:
        self.write("start", step=0, unigram_loss=4.5, data_fingerprint="f", plan={"parameters": 12})
        for step in (1, 2):
            axes = {"samples": 8 * step, "tokens": 64 * step, "wall_seconds": 0.5 * step}
            self.write("train", step=step, loss=0.1 + 0.2 * step, lr=1e-30, memory_peak_bytes=3 * 2**40, mfu=None, **axes)
        self.write("eval", step=2, loss=7.0, mlm_accuracy=0.25)
        self.write("end", step=2, samples=64)

    @property
    def processes(self) -> list[psutil.Process]:
        follower = psutil.Process(self.tracker._process.pid)
        return [follower, *follower.children(recursive=True)]


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING)
    return caplog


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`stand_in(fault)` puts a package in the place of wandb that has this fault; it returns where it notes its `init` calls."""
    package = tmp_path / "packages" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(textwrap.dedent(STAND_IN))

    def put(fault: str = "") -> Path:
        for name, value in {"PYTHONPATH": str(package.parent), "FAULT": fault, "INITS": str(tmp_path / "inits")}.items():
            monkeypatch.setenv(name, value)
        return tmp_path / "inits"

    return put


def test_the_offline_records_are_the_lines_of_this_process(tmp_path: Path, warnings) -> None:
    """Those of an earlier process are in its own records; the two have one id."""
    first = TrackedRun(tmp_path)
    first.write_some()
    first.tracker.finish()
    with first.folder.metrics.open("a") as file:
        file.write('{"kind": "train", "st')  # as a killed process leaves it
    second = TrackedRun(tmp_path)
    second.write("resume", step=1, skipped_steps=0)
    second.write("train", step=2, loss=0.75)
    second.tracker.finish()

    before, after = recorded(first.folder.path)
    lines = [json.loads(text) for text in first.folder.metrics.read_text().splitlines() if text.endswith("}")]
    assert rows(before) == rows_of(lines)[:5] and rows(after) == rows_of(lines)[5:]
    assert rows(before)[1] == AXES_OF_STEP_1 | {"train/loss": 0.1 + 0.2, "train/lr": 1e-30, "train/memory_peak_bytes": 3 * 2**40}
    assert rows(before)[0] == dict.fromkeys(AXES_OF_STEP_1, 0) | {"start/unigram_loss": 4.5}
    assert (steps(before), steps(after)) == ([0, 1, 2, 3, 4], [6, 7])  # as in the file, whose line 5 is torn
    metrics = [record["metric"] for record in before if record["type"] == "metric"]
    assert {metric["name"] for metric in metrics if "name" in metric} == set(AXES_OF_STEP_1)
    assert [metric["step_metric"] for metric in metrics if "glob_name" in metric] == ["step"]
    runs = [next(record["run"] for record in records if record["type"] == "run") for records in (before, after)]
    assert runs[0]["run_id"] == runs[1]["run_id"] == (first.folder.path / "wandb_id").read_text()
    config = runs[0]["config"]["update"]
    assert {name: config[name] for name in FACTS} == FACTS and config["train"]["num_steps"] > 0
    assert [records[-1]["exit"].get("exit_code", 0) for records in (before, after)] == [0, 1]  # the second has no `end`
    assert not warnings.records


def test_an_online_process_uploads_what_those_before_it_could_not(tmp_path: Path, warnings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one run: first lines of which the server has none, then, resumed, those that it lacks; an alert only for one's own."""
    with Server().running() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 5)
        (tmp_path / "it").mkdir()
        offline = MetricsWriter(tmp_path / "it" / "metrics.jsonl")
        offline.write("start", step=0, unigram_loss=4.5)
        offline.write("skip", step=1, reason="spike", samples=8)
        for step in (1, 2):
            run = TrackedRun(tmp_path, "tracker.mode=online")
            run.write("resume", step=step - 1, samples=8 * step)
            run.write("train", step=step, loss=1.0 / step, samples=8 * step + 8)
            if step == 2:
                run.write("skip", step=3, reason="loss_not_finite", samples=32)
                run.write("end", step=2, samples=32, diverged=True)
            run.tracker.finish()
    ((run_id, found),) = server.rows.items()
    assert run_id == (tmp_path / "it" / "wandb_id").read_text() and not warnings.records
    assert [row["_step"] for row in found] == list(range(8))
    lines = [json.loads(text) for text in run.folder.metrics.read_text().splitlines()]
    assert [{name: value for name, value in row.items() if not name.startswith("_")} for row in found] == rows_of(lines)
    assert server.configs[run_id]["plan"]["value"] == FACTS["plan"]
    assert [alert["text"].split(" (")[0] for alert in server.alerts] == [
        "Step 3 was skipped",
        "Too many steps in a row were skipped at step 2; the run has ended.",
    ]


def test_a_skip_and_a_divergence_are_alerts() -> None:
    """The first skip at once, more of them at most once in an hour of the run; what fp16's search for a loss scale skips is ordinary."""
    told: list[tuple[str, ...]] = []
    alerts = Alerts(SimpleNamespace(alert=lambda *message: told.append(message)))
    alerts.see({"kind": "skip", "step": 3, "reason": "gradient_not_finite", "loss_scale": 2.0**15, "wall_seconds": 1.0})
    for seconds in (2.0, 3.0, 3601.0, 3602.5):
        about = {"reason": "gradient_not_finite", "parameter": "head.weight", "loss_scale": 1.0}
        alerts.see({"kind": "skip", "step": 4, "wall_seconds": seconds, **about})
    alerts.see({"kind": "end", "step": 4, "wall_seconds": 3603.0, "diverged": True})
    assert told == [
        ("Step skipped", "Step 4 was skipped (gradient is not finite, head.weight).", "WARN"),
        ("Step skipped", "Step 4 was skipped (gradient is not finite, head.weight), 3 since the last alert.", "WARN"),
        ("Run diverged", "Too many steps in a row were skipped at step 4; the run has ended.", "ERROR"),
    ]


MENDS = {
    "import": r"did not start \(half installed\); going on without it",
    "init": r"did not start \(no route to host\); going on without it",
    "log": r"stopped \(lost\); going on without it",
    "crash": r"ended with exit code 7; going on without it",
    "upload": r"has not taken everything after 45 s; upload the rest with: python -m pretrain.sync /.*/it",
    "hang": r"did not finish in 1 s; upload what is missing with: python -m pretrain.sync /.*/it",
    "unreachable": r"is not online \(no route to host\); recording offline, upload later with: python -m pretrain.sync /.*/it",
}


@pytest.mark.parametrize("fault", MENDS)
def test_a_broken_wandb_is_one_warning(fault: str, tmp_path: Path, stand_in, warnings, capfd, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(fault)
    monkeypatch.setattr(tracker_module, "_FINISH_SECONDS", 1.0 if fault == "hang" else 60.0)
    run = TrackedRun(tmp_path, "tracker.mode=online")
    assert isinstance(run.tracker, WandbTracker)
    run.write_some()
    run.tracker.finish()
    (warning,) = warnings.messages
    assert re.fullmatch(f"warning: Weights & Biases {MENDS[fault]}.*", warning)
    assert capfd.readouterr() == ("", "")
    assert run.tracker._process.returncode is not None
    assert [line["kind"] for line in read_metrics(run.folder.metrics)] == ["start", "train", "train", "eval", "end"]


def test_what_wandb_prints_is_not_shown(tmp_path: Path, stand_in, warnings, capfd) -> None:
    stand_in()
    run = TrackedRun(tmp_path)
    run.write_some()
    run.tracker.finish()
    assert capfd.readouterr() == ("", "") and not warnings.records


def test_its_service_may_be_killed(tmp_path: Path, warnings, capfd) -> None:
    run = TrackedRun(tmp_path)
    run.write("start", step=0, unigram_loss=4.5)
    until(lambda: any(b"unigram_loss" in path.read_bytes() for path in run.folder.path.glob("wandb/offline-run-*/*.wandb")))
    services = [process for process in run.processes if "wandb-core" in process.name()]
    for service in services:
        service.kill()
    assert services
    run.write("train", step=1, loss=1.0)
    run.tracker.finish()
    (warning,) = warnings.messages
    assert "Weights & Biases stopped" in warning and capfd.readouterr() == ("", "")


def until(found: Any, seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return result


def test_a_line_costs_the_run_nothing_even_when_wandb_stands_still(tmp_path: Path, stand_in, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 MB of lines, more than any pipe or socket would take, while nothing of W&B runs."""
    stand_in()
    monkeypatch.setattr(tracker_module, "_FINISH_SECONDS", 0.1)
    run = TrackedRun(tmp_path)
    os.killpg(run.tracker._process.pid, signal.SIGSTOP)
    seconds = []
    for step in range(1000):
        run.writer.write("train", step=step, parameter="x" * 10_000)
        begun = time.perf_counter()
        run.tracker.check()
        seconds.append(time.perf_counter() - begun)
    run.tracker.finish()
    assert sorted(seconds)[990] < 2e-3
    assert run.tracker._process.returncode == -signal.SIGKILL


MODES = {
    "a key": ("auto", {"WANDB_API_KEY": "k"}, "online"),
    "a login": ("auto", {"LOGGED_IN_KEY": "k"}, "online"),
    "no key": ("auto", {}, "offline"),
    "WANDB_MODE": ("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}, "disabled"),
    "asked for": ("offline", {"WANDB_API_KEY": "k", "WANDB_MODE": "online"}, "offline"),
}


@pytest.mark.parametrize("case", MODES)
def test_the_mode_follows_from_the_key_unless_it_is_given(case: str, tmp_path: Path, stand_in, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, environment, wanted = MODES[case]
    inits = stand_in()
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    run = TrackedRun(tmp_path, f"tracker.mode={asked}")
    run.tracker.finish()
    (init,) = map(json.loads, inits.read_text().splitlines())
    assert init["mode"] == wanted


def test_the_follower_ends_with_a_run_that_is_killed(tmp_path: Path, stand_in) -> None:
    """Its input ends with the process that started it, in whatever way."""
    stand_in()
    run = TrackedRun(tmp_path)
    run.write("start", step=0)
    run.tracker._process.stdin.close()  # what the system does with a process that dies
    assert run.tracker._process.wait(60) == 0


def test_what_slurm_sends_to_all_processes_does_not_end_the_follower(tmp_path: Path, stand_in) -> None:
    inits = stand_in()
    run = TrackedRun(tmp_path)
    until(inits.exists)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGQUIT):
        run.tracker._process.send_signal(number)
    run.write_some()
    run.tracker.finish()
    assert run.tracker._process.returncode == 0
