"""A comparison of real runs: killed in the middle and given again, with a rate that diverges."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

from pretrain.compare import design
from pretrain.metrics import last, read_metrics
from tests.distributed.test_layout_invariance import write_corpus
from tests.forked_runs import SMALL
from tests.launchers import REPOSITORY

COMMAND = [
    *(sys.executable, "-m", "pretrain.compare", *(setting for setting in SMALL if not setting.startswith("optimizer"))),
    *("run.name=small", "launch.num_processes=1", "train.max_skipped_steps=2", "compare.seeds=1", "compare.most_rates=2"),
    *("compare.optimizers=[came,adamw]", "compare.lrs.came=[1e-3,2e-3]", "compare.lrs.adamw=[1e-3,1e30]"),
]
RUNS = ("came-lr_0.001-seed_0", "came-lr_0.002-seed_0", "adamw-lr_0.001-seed_0", "adamw-lr_1e+30-seed_0")


def start(folder: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "DS_ACCELERATOR": "cpu"}
    return subprocess.Popen(
        COMMAND, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def test_a_comparison_that_is_killed_goes_on_and_ends_with_a_table(tmp_path: Path):
    write_corpus(tmp_path / "corpus.txt")
    folder = tmp_path / "runs" / "compare-small"
    first = start(tmp_path)
    for line in first.stdout:
        if line.startswith(f"run 2 of 4: {RUNS[1]}"):
            os.killpg(first.pid, signal.SIGKILL)
            break
    first.communicate(timeout=60)
    finished = folder / RUNS[0] / "metrics.jsonl"
    before = finished.read_bytes()
    assert last(read_metrics(finished), "end") is not None

    second = start(tmp_path)
    output, errors = second.communicate(timeout=240)
    assert second.returncode == 0, errors
    assert f"run 1 of 3: {RUNS[1]}" in output and finished.read_bytes() == before

    losses = [next(line["loss"] for line in read_metrics(folder / name / "metrics.jsonl") if line["kind"] == "train") for name in RUNS]
    assert len(set(losses)) == 1, "the first loss, before any update, is that of the same weights on the same tokens and masks"
    found = {row["variant"]: row for row in csv.DictReader((folder / "comparison.csv").read_text().splitlines())}
    assert found["adamw"]["losses_at_rates"].endswith("diverged") and found["adamw"]["best_lr"] == "0.001"
    assert found["came"]["verdict"] == "one seed does not tell" and float(found["came"]["state_bytes"]) > 0
    assert set(design.load(folder).variants) == {"came", "adamw"}
    assert "diverged at" in output and "NOT equal" not in output
