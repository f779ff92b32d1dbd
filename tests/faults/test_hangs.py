"""A rank that is frozen: the others end within the timeout, name it, and leave their stacks."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.faults.fault_points import wrap
from tests.faults.test_ranks import SETTINGS, is_running
from tests.forked_runs import SMALL, ForkedRuns
from tests.launchers import start

TIMEOUT = 4
SECONDS = TIMEOUT + 25
"""From the moment it freezes, until everything has ended."""


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
    assert f"rank {rank} does not answer: it is stopped by a signal (pid {pid} on " in done.errors
    assert "Traceback" not in done.errors
    logs = folder / "runs" / name / "logs"
    stacks = (logs / f"stacks_rank_{1 - rank}.txt").read_text()
    assert "deepspeed/" in stacks and "pretrain/engine.py" in stacks and "thread 0x" in stacks  # where it waited
    assert not is_running((notes / "pid0").read_text()) and not is_running((notes / "pid1").read_text())


def look_at_all_timeouts() -> None:
    """Once DeepSpeed has made its groups."""
    from pretrain.engine import Engine

    def look(*_: object, **__: object) -> None:
        groups = list(dist.distributed_c10d._world.pg_map)
        timeouts = {group._get_backend(torch.device("cpu")).options._timeout for group in groups}
        print(f"{len(groups)} groups, {timeouts}")

    wrap(Engine, "__init__", after=look)


@pytest.mark.parametrize("stage", [1, 3])
def test_the_timeout_holds_in_groups_that_deepspeed_makes(runs: ForkedRuns, stage: int) -> None:
    settings = *SMALL, f"zero=stage{stage}", "launch.timeout_seconds=77", "train.num_steps=1", f"run.name=timeouts{stage}"
    ended = runs.run(*settings, fault=look_at_all_timeouts)
    assert ended.codes == [0, 0], ended.said
    (told,) = [line for line in ended.said.splitlines() if " groups, " in line]
    groups, _, timeouts = told.partition(" groups, ")
    assert int(groups) > 1 and timeouts == str({timedelta(seconds=77)})
