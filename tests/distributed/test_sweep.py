"""A sweep on this machine, one run after another: one that cannot begin holds up no other; the same command again repeats nothing."""

import os
import subprocess
import sys
from pathlib import Path

from pretrain.metrics import last, read_metrics
from pretrain.run_folder import RunFolder
from tests.distributed.test_layout_invariance import write_corpus
from tests.forked_runs import SMALL
from tests.launchers import REPOSITORY

BASE = "mine-max_seq_length_16-dropout_0.1-hidden_size_16-num_heads_2-num_layers_1-seed_{}-vocab_size_300-global_batch_size_8-num_steps_8"


def sweep(folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pretrain", "-m", *SMALL, "run.name=mine", "run.seed=1,2", "launch.num_processes=1"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "DS_ACCELERATOR": "cpu"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_a_sweep_goes_on_past_a_run_that_cannot_begin_and_continues_when_it_can(tmp_path: Path):
    write_corpus(tmp_path / "corpus.txt")
    first, second = (RunFolder(tmp_path / "runs" / BASE.format(seed)) for seed in (1, 2))
    first.path.parent.mkdir()
    first.path.write_text("a file where the first run's folder is to be")

    done = sweep(tmp_path)
    assert done.returncode == 2, done.stderr
    assert f"error: the run folder runs/{first.path.name} cannot be written" in done.stderr
    table = ["sweep: 1 of 2 runs finished", f"  {first.path.name}  refused (exit code 2)", f"  {second.path.name}  finished"]
    assert done.stdout.splitlines()[0] == f"run 1 of 2: {first.path.name}" and done.stdout.splitlines()[-3:] == table
    assert last(read_metrics(second.metrics), "end")["step"] == 8

    first.path.unlink()
    before = second.metrics.read_bytes()
    done = sweep(tmp_path)
    assert done.returncode == 0, done.stderr
    assert last(read_metrics(first.metrics), "end")["step"] == 8
    assert second.metrics.read_bytes() == before and f"the run in runs/{second.path.name} is already finished" in done.stdout
