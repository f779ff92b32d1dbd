"""SIGTERM at any moment of a run: a checkpoint, exit code 85, no traceback, and the same command goes on to the same bits."""

import os
import signal
from collections.abc import Callable
from functools import partial

import pytest
import torch

from came.checkpoint import load_masters
from pretrain.run_folder import RunFolder
from tests.faults.fault_points import is_rank, on_call, while_copying, while_writing, wrap
from tests.forked_runs import SMALL, ForkedRuns, ask_to_stop, told

COMMAND = (*[text for text in SMALL if text != "run.export=false"], "zero=stage2", "train.precision=bf16")


def in_a_step() -> None:
    from pretrain.engine import Engine

    if is_rank(0):
        wrap(Engine, "step", before=on_call(5, ask_to_stop))


def in_a_step_of_one_rank() -> None:
    """Rank 1 alone is asked."""
    from pretrain.engine import Engine

    if is_rank(1):
        wrap(Engine, "step", before=on_call(5, partial(os.kill, os.getpid(), signal.SIGUSR1)))


def in_evaluation() -> None:
    from pretrain import train

    if is_rank(1):
        wrap(train, "evaluate", before=on_call(1, ask_to_stop))


def in_the_last_step() -> None:
    from pretrain.engine import Engine

    if is_rank(0):
        wrap(Engine, "step", before=on_call(8, ask_to_stop))


def in_export() -> None:
    from pretrain import train

    if is_rank(0):
        wrap(train, "export", before=on_call(1, ask_to_stop))


def while_building() -> None:
    from pretrain.engine import Engine

    if is_rank(1):
        wrap(Engine, "__init__", before=on_call(1, ask_to_stop))


def in_the_last_second() -> None:
    """Everything is done and said."""
    from pretrain.recorder import Recorder

    if is_rank(0):
        wrap(Recorder, "close", after=on_call(1, ask_to_stop))


MOMENTS: dict[Callable[[], None], int] = {
    in_a_step: 5,
    in_a_step_of_one_rank: 5,
    in_evaluation: 4,
    partial(while_copying, ask_to_stop): 4,
    partial(while_writing, ask_to_stop): 4,
    in_the_last_step: 8,
    in_export: 8,
}
"""And the step whose checkpoint there must be, at least."""


@pytest.fixture(scope="module")
def undisturbed(runs: ForkedRuns) -> RunFolder:
    ended = runs.run(*COMMAND, "run.name=undisturbed")
    assert ended.codes == [0, 0], ended.said
    return RunFolder(runs.folder / "runs" / "undisturbed")


def name_of(moment: Callable[[], None]) -> str:
    return getattr(moment, "func", moment).__name__


@pytest.mark.parametrize("moment", MOMENTS, ids=name_of)
def test_it_stops_with_a_checkpoint(runs: ForkedRuns, undisturbed: RunFolder, moment: Callable[[], None]) -> None:
    folder = RunFolder(runs.folder / "runs" / name_of(moment))
    command = *COMMAND, f"run.name={name_of(moment)}"
    stopped = runs.run(*command, fault=moment)
    assert stopped.codes == [85, 85], stopped.said
    assert "Traceback" not in stopped.said
    newest = folder.latest_checkpoint()
    assert newest is not None and newest >= folder.checkpoint(MOMENTS[moment])
    assert folder.checkpoint_folder.latest() == newest

    ended = runs.run(*command)
    assert ended.codes == [0, 0], ended.said
    assert f"going on from step {int(newest.name[5:])}" in ended.said
    found, wanted = load_masters(folder.checkpoint(8)), load_masters(undisturbed.checkpoint(8))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert told(folder) == told(undisturbed)
    assert (folder.export / "config.json").exists()


def test_before_the_first_step_there_is_nothing_to_keep(runs: ForkedRuns) -> None:
    stopped = runs.run(*COMMAND, "run.name=building", fault=while_building)
    assert stopped.codes == [85, 85], stopped.said
    assert "Traceback" not in stopped.said
    assert RunFolder(runs.folder / "runs" / "building").latest_checkpoint() is None


def test_in_the_last_second_it_is_ignored(runs: ForkedRuns) -> None:
    ended = runs.run(*COMMAND, "run.name=last_second", fault=in_the_last_second)
    assert ended.codes == [0, 0], ended.said


def save_now() -> None:
    from pretrain.engine import Engine

    if is_rank(1):
        wrap(Engine, "step", before=on_call(3, partial(os.kill, os.getpid(), signal.SIGUSR2)))


def test_a_checkpoint_on_request_changes_nothing(runs: ForkedRuns, undisturbed: RunFolder) -> None:
    ended = runs.run(*COMMAND, "run.name=on_request", "checkpoint.keep_last=0", fault=save_now)
    assert ended.codes == [0, 0], ended.said
    folder = RunFolder(runs.folder / "runs" / "on_request")
    assert [path.name for path in folder.checkpoint_folder.all()] == [f"step_0000000{step}" for step in (2, 3, 4, 6, 8)]
    assert told(folder) == told(undisturbed)


def ask_for_stacks() -> None:
    from pretrain.engine import Engine

    if is_rank(1):
        wrap(Engine, "step", before=on_call(3, partial(os.kill, os.getpid(), signal.SIGQUIT)))


def test_stacks_on_request_change_nothing(runs: ForkedRuns, undisturbed: RunFolder) -> None:
    ended = runs.run(*COMMAND, "run.name=stacks", fault=ask_for_stacks)
    assert ended.codes == [0, 0], ended.said
    folder = RunFolder(runs.folder / "runs" / "stacks")
    assert "pretrain/train.py" in (folder.logs / "stacks_rank_1.txt").read_text()
    assert (folder.logs / "stacks_rank_0.txt").read_text() == ""
    assert told(folder) == told(undisturbed)
