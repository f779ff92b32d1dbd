"""torchrun --max-restarts: a killed rank begins the job anew, and it goes on from the last checkpoint."""

import os
import subprocess
import sys
from pathlib import Path

from pretrain.metrics import read_metrics
from tests.distributed.test_layout_invariance import write_corpus
from tests.forked_runs import SMALL
from tests.launchers import REPOSITORY


def test_a_killed_rank_restarts_the_job(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.txt")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=2"]
    command = [*torchrun, str(Path(__file__).with_name("dying_rank.py")), *SMALL, "checkpoint.asynchronous=false", "run.name=it"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "died").exists() and "going on from step 4" in done.stderr, done.stderr
    lines = read_metrics(tmp_path / "runs" / "it" / "metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "resume"] == [4]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 9))
