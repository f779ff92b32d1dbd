"""A comparison on a real Slurm of two nodes: the runs of a round side by side, as jobs of an array."""

import csv
import os
import subprocess
import sys
from pathlib import Path

from tests.cluster.slurm import Slurm
from tests.distributed.test_layout_invariance import write_corpus
from tests.forked_runs import SMALL


def test_a_comparison_runs_its_rounds_as_jobs(slurm: Slurm, tmp_path: Path):
    write_corpus(tmp_path / "corpus.txt")
    settings = ("run.name=small", "compare.optimizers=[came,adamw]", "compare.seeds=2", "compare.rates=1", "compare.most_rates=1")
    command = [sys.executable, "-m", "pretrain.compare", *SMALL, *settings, "hydra/launcher=submitit_slurm"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | slurm.environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines if "to come" in line] == ["2 runs to come"] * 2
    assert sum(line.startswith("submitted, logs in ") for line in lines) == 2
    found = list(csv.DictReader((tmp_path / "runs" / "compare-small" / "comparison.csv").read_text().splitlines()))
    assert sorted((row["variant"], row["seeds"]) for row in found) == [("adamw", "2"), ("came", "2")]
