"""What the user names, and what is read there: folders, files, W&B's files, and what is none of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.errors import UserError
from pretrain.report.reading import read_runs
from pretrain.report.run import run_of
from tests.made_curves import lines_of, make_curves, write_lines


def test_a_run_s_settings_curves_and_end_are_read(tmp_path: Path) -> None:
    (run,) = read_runs([make_curves(tmp_path / "one", optimizer="lamb", lr=3e-3, seed=7, final_loss=1.5)])
    assert (run.name, run.optimizer, run.objective, run.state) == ("one", "lamb", "mlm", "finished")
    assert (run.settings["optimizer.lr"], run.settings["run.seed"], run.made_with["ranks"]) == (3e-3, 7, 2)
    assert (run.step, run.num_steps, run.wall_seconds) == (40, 40, 36.0 * 40)
    assert (len(run.train), len(run.evals), run.evals.last("loss")) == (40, 4, 1.5)
    assert run.train.largest("memory_peak_bytes") == 10240 and run.train.median("mfu") is None


def test_a_folder_of_runs_stands_for_all_in_it_and_none_is_read_twice(tmp_path: Path) -> None:
    make_curves(tmp_path / "b")
    one = make_curves(tmp_path / "a")
    (tmp_path / "not_a_run").mkdir()
    assert [run.name for run in read_runs([tmp_path, one, one / "metrics.jsonl"])] == ["a", "b"]


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [make_curves(tmp_path / where / "demo") for where in ("here", "there")]
    assert [run.name for run in read_runs(paths)] == ["here/demo", "there/demo"]


def test_superseded_and_torn_lines_do_not_count(tmp_path: Path) -> None:
    lines = lines_of(20, 5, 2.0)
    again = [{"kind": "resume", "step": 10, "samples": 80, "ranks": 4}, {"kind": "train", "step": 11, "samples": 88, "loss": 1.25}]
    folder = make_curves(tmp_path / "resumed")
    write_lines(folder / "metrics.jsonl", [*lines, *again])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 12, "los')
    (run,) = read_runs([folder])
    assert run.train.axes["step"].tolist() == list(range(1, 12)) and run.train.last("loss") == 1.25
    assert run.evals.axes["step"].tolist() == [5, 10]
    assert run.made_with["ranks"] == 4  # of the last time


def test_without_its_config_a_run_is_known_by_its_plan(tmp_path: Path) -> None:
    folder = make_curves(tmp_path / "bare", optimizer="adamw")
    (folder / "config.yaml").unlink()
    (run,) = read_runs([folder])
    assert (run.optimizer, run.num_steps) == ("adamw", 40)


def test_a_run_that_has_only_begun_is_a_run(tmp_path: Path) -> None:
    folder = make_curves(tmp_path / "begun")
    (folder / "metrics.jsonl").write_text("")
    (run,) = read_runs([folder])
    assert (run.state, run.step, len(run.train), run.evals.last("loss")) == ("running", 0, 0, None)


def test_a_metric_that_some_lines_lack_or_that_is_no_number_sometimes_is_kept_in_place() -> None:
    values = [{"a": 1.0}, {}, {"a": None}, {"a": "text"}, {"a": True}, {"a": 2}]
    run = run_of("x", [{"kind": "train", "step": step, **value} for step, value in enumerate(values)], {}, "running")
    assert [str(value) for value in run.train.metrics["a"].tolist()] == ["1.0", "nan", "nan", "nan", "nan", "2.0"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "does not exist; give a run's folder"),
        (lambda path: path.mkdir(), "is no run and holds none"),
        (lambda path: path.write_text("text"), "is no run; give a run's folder"),
        (lambda path: (path.mkdir(), (path / "metrics.jsonl").write_text("none\n")), "holds no line of a run"),
        (lambda path: (path.mkdir(), (path / "metrics.jsonl").write_text('{"loss": 1}\n')), "holds no line of a run"),
        (lambda path: (path.mkdir(), (path / "run-1.wandb").write_text("no")), "is no offline file of Weights & Biases"),
    ],
)
def test_what_is_no_run_is_said_in_one_line(tmp_path: Path, make, said: str) -> None:
    make(tmp_path / "thing")
    with pytest.raises(UserError, match=said) as raised:
        read_runs([tmp_path / "thing"])
    assert "\n" not in str(raised.value)


# Weights & Biases -----------------------------------------------------------------------------------------------------------------

_LOG = """
import json, sys, wandb
from pretrain.wandb_follower import _log, _SETTINGS
folder, lines, config, exit_code = json.load(sys.stdin)
run = wandb.init(project="p", name="of wandb", id="abc", dir=folder, mode="offline", resume="allow", config=config,
                 settings=wandb.Settings(**_SETTINGS))
for line in lines:
    _log(run, line)
run.finish(exit_code=exit_code)
"""


@pytest.fixture(scope="module")
def by_wandb(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run folder with metrics.jsonl, and the wandb/ folder that the same lines became, in two times with a resume."""
    folder = make_curves(tmp_path_factory.mktemp("runs") / "demo", steps=200, every=50)
    begun = lines_of(200, 50, 2.0, plan={"ranks": 2})
    resumed = [{"kind": "resume", "step": 100, "samples": 800, "ranks": 2}, *(line for line in begun if line["step"] > 100)]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    config = {"optimizer": {"name": "came", "lr": 1e-3}, "objective": {"kind": "mlm"}, "plan": {"ranks": 2}, "versions": {"torch": "2"}}
    for lines, code in ((begun[:180], 1), ([*resumed, {"kind": "end", "step": 200, "samples": 1600}], 0)):
        job = json.dumps([str(elsewhere), lines, config, code])
        subprocess.run([sys.executable, "-c", _LOG], input=job, text=True, check=True, capture_output=True)
    return folder, elsewhere


def test_offline_wandb_files_hold_the_same_run(by_wandb: tuple[Path, Path]) -> None:
    folder, elsewhere = by_wandb
    (run,), (other,) = read_runs([folder]), read_runs([elsewhere])
    (same,) = read_runs([elsewhere / "wandb"])
    assert len(same.train) == len(other.train)
    assert (other.name, other.state, other.optimizer, other.step) == ("of wandb", "finished", "came", 200)
    assert other.made_with == {"ranks": 2, "versions.torch": "2"}
    for mine, theirs in ((run.train, other.train), (run.evals, other.evals)):
        assert theirs.axes["step"].tolist() == mine.axes["step"].tolist()
        assert theirs.metrics["loss"].tolist() == mine.metrics["loss"].tolist()


def test_a_torn_wandb_file_gives_what_came_before(by_wandb: tuple[Path, Path], tmp_path: Path) -> None:
    newest = sorted(by_wandb[1].glob("wandb/offline-run-*/*.wandb"))[-1]
    content = newest.read_bytes()
    torn = tmp_path / "run-abc.wandb"
    torn.write_bytes(content[: len(content) // 2])
    (run,) = read_runs([torn])
    assert 100 < run.train.axes["step"][-1] < 200 and run.state == "running"
    torn.write_bytes(content[:200] + b"\xff" + content[201:])
    (run,) = read_runs([torn])
    assert len(run.train) == 0
