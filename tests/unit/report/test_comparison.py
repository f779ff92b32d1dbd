"""States, differences, seeds, targets, verdicts."""

import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.report.comparison import differing, distinguishing, groups_of, shared
from pretrain.report.reading import read_runs
from pretrain.report.run import Run
from pretrain.report.scores import ACCURACY, LOSS, default_target, first_reach
from pretrain.report.significance import difference, t_quantile
from pretrain.report.verdict import verdicts
from tests.made_curves import END, make_curves


@pytest.mark.parametrize(
    ("ending", "quiet_seconds", "state"),
    [
        (END, 1e6, "finished"),
        ({"kind": "end", "diverged": True}, 1e6, "diverged"),
        ({"kind": "stop"}, 1e6, "stopped"),
        (None, 1e6, "killed"),
        (None, 5.0, "running"),
        ({"kind": "checkpoint"}, 5.0, "running"),
    ],
)
def test_the_state_follows_from_the_last_lines(tmp_path: Path, ending: dict | None, quiet_seconds: float, state: str) -> None:
    (run,) = read_runs([make_curves(tmp_path / "run", ending=ending, quiet_seconds=quiet_seconds)])
    assert run.state == state


def test_a_run_that_went_on_after_a_stop_is_not_stopped(tmp_path: Path) -> None:
    folder = make_curves(tmp_path / "run", ending={"kind": "stop"})
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "resume", "step": 40, "samples": 320}\n{"kind": "train", "step": 41, "samples": 328, "loss": 2.0}\n')
    (run,) = read_runs([folder])
    assert run.state == "running"


def test_a_quiet_run_whose_process_lives_is_running(tmp_path: Path) -> None:
    folder = make_curves(tmp_path / "run", ending=None)
    hold = "import sys; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", hold, folder / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        assert read_runs([folder])[0].state == "running"
    finally:
        holder.communicate(b"\n", timeout=60)
    assert read_runs([folder])[0].state == "killed"


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """CAME with three seeds, AdamW with three, LAMB with one; and where they were made does not matter."""
    for seed in range(3):
        make_curves(tmp_path / f"came_{seed}", "came", 1e-3, seed, final_loss=2.0 + 0.01 * seed, optimizer__beta3=0.9999)
        make_curves(tmp_path / f"adamw_{seed}", "adamw", 3e-3, seed, final_loss=2.5 + 0.01 * seed, tracker__kind=f"{seed}")
    make_curves(tmp_path / "lamb", "lamb", 3e-3, final_loss=2.2)
    return read_runs([tmp_path])


def test_what_differs_is_found_and_what_is_bookkeeping_is_not(runs: list[Run]) -> None:
    assert differing(runs) == ["optimizer.name", "optimizer.lr", "run.seed"]
    assert distinguishing(runs) == ["optimizer.name"]
    assert shared(runs, ["zero.stage", "optimizer.name", "nothing"]) == {"zero.stage": 2}


def test_seeds_form_a_group_and_nothing_else_does(runs: list[Run], tmp_path: Path) -> None:
    assert [(group.label, len(group.runs)) for group in groups_of(runs)] == [("adamw", 3), ("came", 3), ("lamb", 1)]
    make_curves(tmp_path / "staged", "came", 1e-3, 5, optimizer__beta3=0.9999, zero__stage=3)
    labels = [(group.label, len(group.runs)) for group in groups_of(read_runs([tmp_path]))]
    assert labels == [("adamw, stage 2", 3), ("came, stage 2", 3), ("lamb", 1), ("staged", 1)]


def test_a_target_is_reached_at_an_evaluation_never_between_two(tmp_path: Path) -> None:
    (run,) = read_runs([make_curves(tmp_path / "run", steps=40, every=10, final_loss=2.0)])  # 4.25, 3.5, 2.75, 2.0
    assert first_reach(run, LOSS, 3.4999).step == 30 and first_reach(run, LOSS, 3.5).step == 20
    assert first_reach(run, LOSS, 3.5).hours == pytest.approx(20 * 36 / 3600)
    assert first_reach(run, ACCURACY, 0.5).step == 40
    assert first_reach(run, LOSS, 1.9) is None


def test_the_default_target_is_adamw_s_best_or_the_median(runs: list[Run]) -> None:
    assert default_target(runs) == 2.5
    assert default_target(run for run in runs if run.optimizer != "adamw") == pytest.approx(2.015, abs=1e-4)
    assert default_target([]) is None


def test_a_difference_is_real_only_where_seeds_say_so(runs: list[Run]) -> None:
    adamw, came, lamb = verdicts(groups_of(runs))
    assert (adamw.word, came.word, lamb.word) == ("reference", "better", "one seed does not tell")
    assert came.mean == pytest.approx(2.01) and came.spread == pytest.approx(0.01)
    # Welch with equal spreads 0.01 and 3 seeds each: 4 degrees, t = 2.776, standard error 0.01 sqrt(2/3)
    assert came.difference.high - came.difference.mean == pytest.approx(2.7764 * 0.01 * (2 / 3) ** 0.5, rel=1e-3)


def test_unfinished_runs_are_not_judged_and_objectives_not_mixed(tmp_path: Path) -> None:
    make_curves(tmp_path / "a", "came", ending={"kind": "end", "diverged": True})
    make_curves(tmp_path / "b", "adamw")
    make_curves(tmp_path / "c", "came", objective="clm")
    assert [verdict.word for verdict in verdicts(groups_of(read_runs([tmp_path])))] == ["not finished", "reference", "reference"]


def test_seeds_that_spread_as_far_as_the_settings_differ_show_nothing() -> None:
    found = difference([2.0, 2.4, 1.9], [2.1, 2.5, 2.0])
    assert found.is_real is False and found.low < -0.1 < found.high
    assert difference([2.0], [2.1, 2.2]).is_real is None
    assert difference([2.0, 2.0], [3.0, 3.0]).is_real is True  # no spread at all


@pytest.mark.parametrize(("degrees", "wanted"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (10, 2.2281), (200, 1.9719)])
def test_student_s_quantiles_are_those_of_the_tables(degrees: float, wanted: float) -> None:
    assert t_quantile(0.975, degrees) == pytest.approx(wanted, rel=1e-4)
