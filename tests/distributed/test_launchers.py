"""However the ranks are started, it is the same run; and what goes wrong before they train is told once."""

import os
from pathlib import Path

import pytest

from came.verify.ranks import run_on_ranks
from pretrain import shared_data
from pretrain.errors import UserError
from pretrain.metrics import read_metrics
from pretrain.shared_data import open_on_all_ranks
from tests.distributed.test_layout_invariance import write_corpus
from tests.forked_runs import ForkedRuns
from tests.launchers import LAUNCHERS, start

SETTINGS = (
    "data=text data.paths=[corpus.txt] data.cache_dir=cache tokenizer.vocab_size=300 data.max_seq_length=16 run.dir=runs tracker=none "
    "model.num_layers=1 model.hidden_size=16 model.num_heads=2 train.global_batch_size=8 train.micro_batch_size=2 train.num_steps=4 "
    "train.eval_samples=8 train.eval_every_steps=2 train.checkpoint_every_steps=2 train.log_every_steps=1 launch.num_processes=2 "
    "checkpoint.asynchronous=false"  # so that each has its line at the same place
).split()
DIFFER = {"path", "bytes", "mfu", "tokens_per_second", *("memory_peak_bytes", "memory_process_bytes", "peak_bytes", "process_bytes")}
"""The bytes of a checkpoint are also those of the run's name."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_corpus(folder / "corpus.txt")
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, list[dict]]:
    """The metrics of the same run by every launcher, without what a clock or the machine decides; srun's is also profiled."""
    found = {}
    for launcher in LAUNCHERS:
        profiled = ["train.profile_steps=[2,3]"] if launcher == "srun" else []
        done = start(launcher, ["-m", "pretrain", *SETTINGS, *profiled, f"run.name={launcher}"], folder)
        assert done.code == 0, done.errors
        assert (
            done.errors.count("step 4/4: loss") == done.errors.count("first step begun ") == 1
            and done.output.count("finished  4 steps") == 1
        )
        found[launcher] = [
            {name: value for name, value in line.items() if name not in DIFFER and not name.endswith("_seconds")}
            for line in read_metrics(folder / "runs" / launcher / "metrics.jsonl")
        ]
    return found


@pytest.mark.parametrize("launcher", LAUNCHERS[1:])
def test_metrics_are_the_same_to_the_bit(runs: dict[str, list[dict]], launcher: str) -> None:
    assert {"loss", "lr", "grad_norm", "update_rms"} <= next(line for line in runs["spawn"] if line["kind"] == "train").keys()
    assert runs[launcher] == runs["spawn"]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_each_rank_has_a_log(runs: dict[str, list[dict]], folder: Path, launcher: str) -> None:
    logs = folder / "runs" / launcher / "logs"
    first, second = ((logs / f"rank_{rank}.log").read_text() for rank in (0, 1))
    assert first.startswith("--- 20") and "rank 0 of 2\n" in first and "step 4/4: validation loss" in first
    assert second.startswith("--- 20") and "rank 1 of 2\n" in second


def test_the_profiled_run_has_its_trace(runs: dict[str, list[dict]], folder: Path) -> None:
    assert [path.name for path in (folder / "runs" / "srun" / "profile").iterdir()] == ["trace_rank0_steps_2_3.json.gz"]


@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_a_finished_run_is_said_to_be_so_once(runs: dict[str, list[dict]], folder: Path, launcher: str) -> None:
    done = start(launcher, ["-m", "pretrain", *SETTINGS, f"run.name={launcher}"], folder)
    assert (done.code, done.output.count("is already finished")) == (0, 1)


def test_a_mistake_that_rank_0_finds_while_it_prepares_ends_all_and_is_told_once(folder: Path) -> None:
    done = start("srun", ["-m", "pretrain", *SETTINGS, "data.paths=[nowhere.txt]", "run.name=mistake"], folder)
    assert done.code == 2 and done.errors.count("error: ") == 1 and len(done.errors.splitlines()) == 1, done.errors
    assert "nowhere.txt" in done.errors
    assert not (folder / "runs" / "mistake").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_that_do_not_come_are_told_of_with_what_was_tried(folder: Path, rank: int) -> None:
    port = ["0", "1"][rank]  # rank 0 takes any that is free
    settings = *SETTINGS, "launch.rendezvous_timeout_seconds=1", "run.name=alone"
    ended = ForkedRuns(folder).run(*settings, ranks=1, first_rank=rank, WORLD_SIZE="2", MASTER_PORT=port)
    errors = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    assert ended.codes == [2] and len(errors) == 1, ended.said
    assert f"rank {rank} on " in errors[0] and f"waited 1 s at 127.0.0.1 port {port} for all 2 ranks" in errors[0]
    assert "launch.rendezvous_timeout_seconds" in errors[0]


def open_own_folder(folders: list[Path]) -> str:
    """What this rank is told when it looks at its own of the folders."""
    shared_data._LAG_SECONDS = 0.0
    try:
        return open_on_all_ranks(folders[int(os.environ["RANK"])]).fingerprint
    except UserError as error:
        return str(error)


def test_a_rank_that_does_not_see_the_prepared_data_is_named(runs: dict[str, list[dict]], folder: Path) -> None:
    (prepared,) = (path for path in (folder / "cache").glob("text-wordpiece-*") if path.is_dir())
    first, second = run_on_ranks(2, open_own_folder, [prepared, prepared])
    assert first == second and len(first) == 64
    first, second = run_on_ranks(2, open_own_folder, [prepared, folder / "elsewhere"])
    assert first == second
    assert first.startswith("rank 1 on ") and "does not see the data that rank 0 on " in first and str(prepared) in first
    assert "the file system is not shared; give a data.cache_dir that all nodes share, or run python -m pretrain.prepare" in first
