"""The end of a run: the ranks leave one after the other, and the last of them has no reason to complain."""

import os
import time

from pretrain.exit_codes import DIVERGED
from tests.distributed.bad_steps import spoil_losses
from tests.faults.fault_points import is_rank, wrap
from tests.forked_runs import SMALL, ForkedRuns
from tests.launchers import srun_variables


def close_when_rank_1_has_gone() -> None:
    """As when Weights & Biases takes its time on rank 0: the watch sees that rank 1's process is no more."""
    from pretrain import failures
    from pretrain.recorder import Recorder

    boards = []

    def look_around_alone(*_: object) -> None:
        ((_, pid),) = boards[0]._neighbours.items()
        deadline = time.monotonic() + 30
        while failures._is_alive(pid):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert boards[0].look_around() == []

    if is_rank(0):
        wrap(failures.Board, "__init__", after=lambda board, *_: boards.append(board))
        wrap(Recorder, "close", before=look_around_alone)


def test_a_rank_that_has_finished_may_go_before_rank_0(runs: ForkedRuns) -> None:
    ended = runs.run(*SMALL, "train.num_steps=1", "run.name=it", fault=close_when_rank_1_has_gone)
    assert ended.codes == [0, 0], ended.said
    assert "without a word" not in ended.said


def diverge_as_tasks_of_srun() -> None:
    close_when_rank_1_has_gone()
    os.environ["BAD_STEPS"] = "1:nan"
    spoil_losses()
    os.environ.update(srun_variables(int(os.environ.pop("RANK")), 2))


def test_a_run_that_failed_ends_with_the_code_of_rank_0_which_srun_would_end_with_another(runs: ForkedRuns) -> None:
    ended = runs.run(*SMALL, "train.max_skipped_steps=1", "run.name=diverged", fault=diverge_as_tasks_of_srun)
    assert ended.codes == [DIVERGED, 0], ended.said
    assert "error: 1 steps in a row were skipped" in ended.said
