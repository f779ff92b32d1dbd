"""A whole run in which steps go wrong: what the user reads, what metrics.jsonl holds, and how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.checkpoint import manifest
from pretrain.checkpoint.restoring import check
from pretrain.exit_codes import DIVERGED
from pretrain.metrics import last, read_metrics
from pretrain.run_folder import RunFolder
from tests.distributed.test_layout_invariance import write_corpus
from tests.forked_runs import ForkedRuns

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = (
    "data=text data.paths=[corpus.txt] data.cache_dir=cache tokenizer.vocab_size=300 data.max_seq_length=16 run.dir=runs tracker=none "
    "model.num_layers=1 model.hidden_size=16 model.num_heads=2 train.global_batch_size=8 train.micro_batch_size=4 train.num_steps=60 "
    "train.eval_samples=8 train.log_every_steps=1 train.checkpoint_every_steps=44 launch.num_processes=2 train.spike_sigma=6 "
    "train.max_skipped_steps=3 run.name=bad"
).split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_corpus(folder / "corpus.txt")
    return folder


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess:
    """A spike, four good steps, then bad ones of each kind until the run gives up."""
    command = [sys.executable, str(Path(__file__).with_name("bad_steps.py")), *SETTINGS]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "BAD_STEPS": "41:1e4,46:nan,47:inf,48:1e4"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_it_ends_as_diverged_and_says_why(done: subprocess.CompletedProcess) -> None:
    assert done.returncode == DIVERGED, done.stderr
    assert "step 41 skipped: its gradient norm, " in done.stderr
    assert done.stderr.count("step 45 skipped: the loss is not finite") == 2
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: 3 steps in a row were skipped, the last because its gradient norm, ")
    assert error.endswith("; give a lower optimizer.lr or a larger train.spike_sigma")
    assert "Traceback" not in done.stderr


def test_metrics_hold_every_skip_and_the_schedule_stays(done: subprocess.CompletedProcess, folder: Path) -> None:
    lines = read_metrics(folder / "runs" / "bad" / "metrics.jsonl")
    spike, *others, last_spike = [line for line in lines if line["kind"] == "skip"]
    assert (spike["step"], spike["reason"], spike["skipped_steps"]) == (41, "spike", 1)
    assert spike["grad_norm"] > 100 and spike["standard_deviations"] > 6 and "parameter" not in spike
    assert [(line["step"], line["reason"], line["grad_norm"]) for line in others] == [(45, "loss_not_finite", None)] * 2
    assert (last_spike["step"], last_spike["reason"]) == (45, "spike")
    assert {line["parameter"] for line in others} == {"model.bert.embeddings.word_embeddings.weight"}
    train = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in train] == list(range(1, 45))
    assert [line["samples"] for line in train[38:42]] == [39 * 8, 40 * 8, 42 * 8, 43 * 8]  # the batch is not tried again
    end = last(lines, "end")
    assert end["diverged"] and end["skipped_steps"] == 4


def test_the_checkpoint_is_of_the_last_applied_step_with_all_skips_behind_it(done: subprocess.CompletedProcess, folder: Path) -> None:
    """It was written at step 44, before the last three skips: only its counts were written anew."""
    bad = RunFolder(folder / "runs" / "bad")
    norms = [line["grad_norm"] for line in read_metrics(bad.metrics) if line["kind"] == "train"]
    progress = manifest.progress_of(check(bad.checkpoint(44)))
    assert (progress.step, progress.skipped_steps, progress.recent_grad_norms) == (44, 4, norms)
    assert bad.checkpoint_folder.all() == [bad.checkpoint(44)] and bad.latest_checkpoint() == bad.checkpoint(44)


def test_the_same_command_goes_on_behind_the_bad_batches(done: subprocess.CompletedProcess, folder: Path) -> None:
    again = ForkedRuns(folder).run(*SETTINGS)
    assert again.codes == [0, 0], again.said
    lines = read_metrics(folder / "runs" / "bad" / "metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 61))
    assert [line["samples"] for line in lines if line["kind"] == "train"][43:45] == [45 * 8, 49 * 8]
    assert len([line for line in lines if line["kind"] == "skip"]) == 4
