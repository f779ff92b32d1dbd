"""A rank that is frozen: the others end within the timeout, name it, and leave their stacks."""

from pathlib import Path

import pytest

from tests.distributed.test_layout_invariance import write_corpus
from tests.faults.test_ranks import SETTINGS, is_running
from tests.launchers import start

TIMEOUT = 4
SECONDS = TIMEOUT + 25
"""From the moment it freezes, until everything has ended."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_corpus(folder / "corpus.txt")
    return folder


CASES = [("spawn", 1, 3), ("srun", 1, 1), ("srun", 0, 2)]
"""Launcher, frozen rank, ZeRO stage: DeepSpeed's reductions run in a group of its own."""


@pytest.mark.parametrize(("launcher", "rank", "stage"), CASES, ids=[f"{case[0]}-rank{case[1]}-stage{case[2]}" for case in CASES])
def test_the_others_end_in_time_and_say_why(folder: Path, launcher: str, rank: int, stage: int) -> None:
    name = f"{launcher}_{rank}_{stage}"
    notes = folder / name
    notes.mkdir()
    program = [str(Path(__file__).with_name("failing_rank.py")), *SETTINGS, f"run.name={name}", f"zero=stage{stage}"]
    program.append(f"launch.timeout_seconds={TIMEOUT}")
    environment = {"FAILING_NOTES": str(notes), "FAILING_HOW": "freeze", "FAILING_RANK": str(rank)}
    done = start(launcher, program, folder, kill_on_bad_exit=True, **environment)
    seconds = done.ended_at - float((notes / "failed_at").read_text())
    print(f"{name}: ended after {seconds:.1f} s\n{done.errors}")
    assert done.code == (1 if launcher == "spawn" else 137)  # of the frozen task, which srun killed
    assert TIMEOUT <= seconds < SECONDS
    pid = (notes / f"pid{rank}").read_text()
    assert f"rank {rank} does not answer: " in done.errors
    if (launcher, rank) != ("srun", 0):  # that one holds the store, in which the others would have looked it up
        assert f"it is stopped by a signal (pid {pid} on " in done.errors
    assert "Traceback" not in done.errors
    logs = folder / "runs" / name / "logs"
    stacks = (logs / f"stacks_rank_{1 - rank}.txt").read_text()
    assert "deepspeed/" in stacks and "pretrain/engine.py" in stacks and "thread 0x" in stacks  # where it waited
    assert not is_running((notes / "pid0").read_text()) and not is_running((notes / "pid1").read_text())
