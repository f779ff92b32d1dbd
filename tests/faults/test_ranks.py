"""A rank that raises, leaves, crashes or is killed: the run ends within seconds, the cause is what the user reads, and nobody is left."""

from pathlib import Path

import pytest

from tests.launchers import Done, start

SETTINGS = (
    "data=text data.paths=[corpus.txt] data.cache_dir=cache tokenizer.vocab_size=300 data.max_seq_length=16 run.dir=runs tracker=none "
    "model.num_layers=1 model.hidden_size=16 model.num_heads=2 train.global_batch_size=8 train.micro_batch_size=4 train.num_steps=50 "
    "train.eval_samples=8 launch.num_processes=2"
).split()
SECONDS = 10
RAISED = "ZeroDivisionError: the rank's own error"
CASES = [
    ("spawn", "raise", 1, "rank 1 failed:\nTraceback"),
    ("spawn", "exit", 0, "rank 0 left in the middle of the run, with exit code 3"),
    ("spawn", "kill", 1, "rank 1 ended without a word, killed by SIGKILL"),
    ("torchrun", "raise", 1, "rank 1 failed:\nTraceback"),
    ("torchrun", "kill", 1, "Signal 9 (SIGKILL) received"),
    ("srun", "raise", 1, "rank 1 failed:\nTraceback"),
    ("srun", "kill", 0, "rank 0 ended without a word"),
]


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def fail(folder: Path, launcher: str, how: str, rank: int) -> tuple[Done, Path]:
    name = f"{launcher}_{how}_{rank}"
    notes = folder / f"notes_{name}"
    notes.mkdir()
    program = [str(Path(__file__).with_name("failing_rank.py")), *SETTINGS, f"run.name={name}"]
    return start(launcher, program, folder, FAILING_NOTES=str(notes), FAILING_HOW=how, FAILING_RANK=str(rank)), notes


@pytest.mark.parametrize(("launcher", "how", "rank", "told"), CASES, ids=[f"{case[0]}-{case[1]}-{case[2]}" for case in CASES])
def test_a_failing_rank_ends_the_run(folder: Path, launcher: str, how: str, rank: int, told: str) -> None:
    done, notes = fail(folder, launcher, how, rank)
    assert (notes / "failed_at").exists(), done.errors
    seconds = done.ended_at - float((notes / "failed_at").read_text())
    print(f"{launcher} {how} rank {rank}: ended after {seconds:.1f} s\n{done.errors}")
    assert done.code != 0
    assert seconds < SECONDS
    assert told in done.errors
    assert done.errors.count(RAISED) == {"spawn": 1, "torchrun": 2, "srun": 1}[launcher] * (how == "raise")  # torchrun's summary repeats it
    assert not any(echo in done.errors for echo in ("Connection closed by peer", "Connection reset", "/gloo/"))
    pids = [(notes / f"pid{number}").read_text() for number in (0, 1)]
    assert not [pid for pid in pids if is_running(pid)]
    logs = folder / "runs" / f"{launcher}_{how}_{rank}" / "logs"
    if how == "raise":
        assert RAISED in (logs / f"rank_{rank}.log").read_text()
    assert f"pid {pids[1]} rank 1 of 2" in (logs / "rank_1.log").read_text()
