"""A sweep on a real Slurm of two nodes: one job of an array for each run, one task for each rank."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.metrics import last, read_metrics
from pretrain.run_folder import RunFolder
from tests.cluster.slurm import Slurm
from tests.distributed.test_layout_invariance import write_corpus
from tests.forked_runs import SMALL

SWEEP = ["-m", *SMALL, "run.name=mine", "run.seed=1,2,3", "hydra/launcher=submitit_slurm", "hydra.launcher.nodes=2"]
BASE = "mine-max_seq_length_16-dropout_0.1-hidden_size_16-num_heads_2-num_layers_1-seed_{}-vocab_size_300-global_batch_size_8-num_steps_8"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    write_corpus(folder / "corpus.txt")
    return folder


def test_a_sweep_on_slurm_to_its_end_with_a_run_that_is_stopped_and_one_that_cannot_begin(slurm: Slurm, folder: Path):
    runs = [RunFolder(folder / "runs" / BASE.format(seed)) for seed in (1, 2, 3)]
    runs[2].path.parent.mkdir()
    runs[2].path.write_text("a file where the third run's folder is to be")
    command = [sys.executable, "-m", "pretrain", *SWEEP]
    with subprocess.Popen(command, cwd=folder, env=os.environ | slurm.environment, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout
        assert launcher.stdout.readline().startswith(f"submitted, logs in {folder}/runs/.sweeps/")
        jobs = dict(reversed(launcher.stdout.readline().split()) for _ in runs)
        assert list(jobs) == [run.path.name for run in runs]
        first, second, third = jobs.values()

        # Asked to stop while it starts, as before a time limit: back into the queue, alone of its array, and to its end all the same.
        slurm.wait_for((runs[0].logs / "rank_0.log").exists, "start of the first run")
        slurm.call("scancel", "--signal=USR1", first)
        slurm.wait_for(lambda: slurm.job(first)["Restarts"] == "1", "second start of the first run")
        slurm.hasten(first)
        said, _ = launcher.communicate(timeout=180)

    assert launcher.returncode == 2
    assert re.findall(r"^  mine\S+seed_(\d)\S+ +(.*)$", said, re.MULTILINE) == [
        ("1", "finished"),
        ("2", "finished"),
        ("3", "refused (exit code 2)"),
    ]
    for run in runs[:2]:
        lines = read_metrics(run.metrics)
        assert last(lines, "end")["step"] == 8 and last(lines, "start")["plan"]["ranks"] == 2
    states = [(job["JobState"], job["Restarts"], job["ExitCode"]) for job in map(slurm.wait_for_end, (first, second, third))]
    assert states == [("COMPLETED", "1", "0:0"), ("COMPLETED", "0", "0:0"), ("FAILED", "0", "2:0")]


def test_what_slurm_does_not_take_is_said_not_to_be_submitted(slurm: Slurm, folder: Path):
    command = [sys.executable, "-m", "pretrain", *SWEEP, "run.dir=elsewhere", "hydra.launcher.partition=nowhere"]
    done = subprocess.run(command, cwd=folder, env=os.environ | slurm.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "runs finished" not in done.stdout
    error = done.stderr.splitlines()[-1]
    assert re.match(r"error: nothing was submitted \(.*invalid partition.*\); mend hydra.launcher.\*, such as its partition", error), done.stderr
