"""Whole runs beside Weights & Biases: on an ordinary machine, on one whose network swallows everything, and with a broken wandb."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pretrain.metrics import read_metrics
from pretrain.workspace import SECTIONS
from tests.distributed.test_layout_invariance import write_corpus
from tests.wandb_records import recorded, rows, rows_of

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = (
    "data=text",
    "data.paths=[corpus.txt]",
    "data.cache_dir=cache",
    "data.validation_fraction=0.1",
    "tokenizer.vocab_size=300",
    "data.max_seq_length=32",
    "run.dir=runs",
    "model.num_layers=1",
    "model.hidden_size=32",
    "model.num_heads=2",
    "train.global_batch_size=8",
    "train.micro_batch_size=8",
    "train.num_steps=4",
    "train.log_every_steps=1",
    "train.eval_samples=8",
    "launch.num_processes=1",
)
NOT_IN_THIS_RUN = {"eval/perplexity", "train/mfu"}
"""Of a GPT-2, and of a GPU."""
SWALLOWING_NETWORK = """
set -e
for family in all default; do echo 1 > /proc/sys/net/ipv6/conf/$family/disable_ipv6 || true; done
ip link set lo up
ip link add near address 02:00:00:00:00:01 type veth peer name far address 02:00:00:00:00:02
ip link set near up
ip link set far up
ip address add 10.9.9.1/24 dev near
ip neighbour add 10.9.9.2 lladdr 02:00:00:00:00:02 dev near nud permanent
ip route add default via 10.9.9.2
echo nameserver 10.9.9.2 > resolv.conf
mount --bind resolv.conf /etc/resolv.conf
"$@"
"""
"""A name server and a world that can be spoken to and never answer: here a name look-up waits for as long as its patience lasts."""


class Runs:
    """Runs of the same settings in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_corpus(folder / "corpus.txt")

    def command(self, name: str, prefix: tuple[str, ...] = (), **environment: str) -> tuple[subprocess.CompletedProcess, float]:
        """How a run ended and how many seconds it took; nothing but the absence of a key makes W&B offline."""
        variables = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
        variables |= {"PYTHONPATH": str(REPOSITORY), "HOME": str(self.folder)} | environment
        begun = time.monotonic()
        command = [*prefix, sys.executable, "-m", "pretrain", *SETTINGS, f"run.name={name}"]
        done = subprocess.run(command, cwd=self.folder, env=variables, capture_output=True, text=True, timeout=240)
        return done, time.monotonic() - begun


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def ordinary(runs: Runs) -> tuple[subprocess.CompletedProcess, float]:
    return runs.command("ordinary")


@pytest.fixture
def swallowing(runs: Runs) -> tuple[str, ...]:
    """In front of a command: run it in a network of its own."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip", "mount"))):
        pytest.skip("a network namespace needs root, util-linux and iproute2")
    prefix = ("unshare", "--net", "--mount", "sh", "-c", SWALLOWING_NETWORK, "sh")
    tried = subprocess.run([*prefix, "true"], cwd=runs.folder, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no network namespace can be made here: {tried.stderr.strip()}")
    return prefix


def counting(command: tuple[str, ...]) -> tuple[str, ...]:
    """After a command's own output, a last line with the packets that were sent into the world."""
    return (*command, "sh", "-c", '"$@"; code=$?; sed -n "s/ *near: *//p" /proc/net/dev | cut -d " " -f 1-99; exit $code', "sh")


def packets_sent(done: subprocess.CompletedProcess) -> int:
    return int(done.stdout.splitlines()[-1].split()[9])


def test_an_offline_run_s_records_are_its_metrics(runs: Runs, ordinary) -> None:
    done, _ = ordinary
    assert done.returncode == 0 and "warning" not in done.stderr
    folder = runs.folder / "runs" / "ordinary"
    lines = read_metrics(folder / "metrics.jsonl")
    (records,) = recorded(folder)
    assert [line["kind"] for line in lines] == [
        *("start", "memory", "startup", "memory", *["train"] * 3, "memory", "train", "eval", "checkpoint", "end")
    ]
    assert rows(records) == rows_of(lines)
    assert records[-1]["exit"]["exit_code"] == 0
    config = next(record["run"]["config"]["update"] for record in records if record["type"] == "run")
    assert {name: config[name] for name in ("plan", "versions", "git")} == {name: lines[0][name] for name in ("plan", "versions", "git")}


def test_the_dashboard_s_names_are_those_that_a_run_logs(runs: Runs, ordinary) -> None:
    (records,) = recorded(runs.folder / "runs" / "ordinary")
    logged = {name for row in rows(records) for name in row}
    panels = [panel for section in SECTIONS.values() for panel in section]
    shown = {name for panel in panels for name in (getattr(panel, "metrics", None) or (panel.metric,))}
    assert shown - logged <= NOT_IN_THIS_RUN and {"train/loss", "eval/loss", "train/memory_optimizer_bytes"} <= shown & logged


def test_the_network_is_left_alone(runs: Runs, ordinary, swallowing: tuple[str, ...]) -> None:
    """Not one packet leaves, so nothing waits for an answer; offline follows from there being no key."""
    done, seconds = runs.command("swallowed", counting(swallowing))
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert packets_sent(done) == 0
    assert seconds < 3 * ordinary[1] + 20
    folder = runs.folder / "runs" / "swallowed"
    assert rows(recorded(folder)[0]) == rows_of(read_metrics(folder / "metrics.jsonl"))


def test_the_swallowing_network_sees_a_look_up(runs: Runs, swallowing: tuple[str, ...]) -> None:
    """Guards the guard: a name look-up is counted."""
    look_up = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('10.9.9.2', 53))"
    done = subprocess.run([*counting(swallowing), sys.executable, "-c", look_up], cwd=runs.folder, capture_output=True, text=True)
    assert done.returncode == 0 and packets_sent(done) == 1


def test_a_broken_wandb_is_a_warning_and_exit_code_0(runs: Runs, ordinary) -> None:
    package = runs.folder / "packages" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('half installed')\n")
    done, _ = runs.command("broken", PYTHONPATH=f"{package.parent}:{REPOSITORY}")
    assert done.returncode == 0, done.stderr
    (warning,) = (line for line in done.stderr.splitlines() if "wandb" in line.lower() or "Weights" in line)
    assert warning == "warning: Weights & Biases did not start (half installed); going on without it, metrics.jsonl has everything"
    losses = [
        [line["loss"] for line in read_metrics(runs.folder / "runs" / name / "metrics.jsonl") if "loss" in line]
        for name in ("broken", "ordinary")
    ]
    assert losses[0] == losses[1]
