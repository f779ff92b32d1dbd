"""A comparison that was ended, or is added to, goes on where it was."""

import shutil
from pathlib import Path

import pytest

from pretrain.compare import design as designs
from pretrain.compare import running
from pretrain.compare.__main__ import main
from pretrain.compare.composing import read_command
from pretrain.compare.summary import summarise
from pretrain.compare.table import as_csv, as_text
from pretrain.exit_codes import DONE, STOPPED_ON_REQUEST
from pretrain.run_folder import RunFolder
from tests.made_comparison import GRIDS, RUN, SETTINGS, THREE, make_comparison, row, world, write_run


def test_a_comparison_killed_in_the_middle_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made):
    asked = read_command([f"run.dir={tmp_path}", *SETTINGS, *THREE], None)
    done: list[str] = []

    def start_all(runs: list, launcher: None) -> dict:
        codes = {}
        for run in runs:
            if len(done) in (2, 7, 13) and run.name not in done:
                done.append(run.name)  # asked to stop: its own command would go on
                return codes | {run.name: STOPPED_ON_REQUEST}
            write_run(run, world)
            done.append(run.name)
            codes[run.name] = DONE
        return codes

    monkeypatch.setattr(running, "start_all", start_all)
    codes = []
    while DONE not in codes:
        with running.begun(asked, None) as comparison:
            codes.append(running.run_all(comparison, None))
    assert codes == [STOPPED_ON_REQUEST] * 3 + [DONE]
    assert as_csv(summarise({comparison.folder: comparison.design})) == as_csv(summarise({made.folder: made.design}))


def test_seeds_rates_and_optimizers_can_be_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_comparison(tmp_path, world, "compare.optimizers=[came]", "compare.seeds=2", GRIDS[0], monkeypatch=monkeypatch)
    more = ("compare.optimizers=[adamw]", "compare.seeds=3", GRIDS[1])
    made = make_comparison(tmp_path, world, *more, monkeypatch=monkeypatch)
    rows = {found.variant: len(found.losses) for found in summarise({made.folder: made.design}).rows}
    assert rows == {"adamw": 3, "came": 2}
    assert "NOT finished: came" in as_text(summarise({made.folder: made.design}))


def test_rates_that_are_added_lose_no_run_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The grid has grown to its best rate by itself; a further rate far above does not undo that."""
    settings = ("compare.optimizers=[adamw]", "compare.seeds=1")
    make_comparison(tmp_path, world, *settings, "compare.lrs.adamw=[1.25e-4,2.5e-4]", monkeypatch=monkeypatch)
    made = make_comparison(tmp_path, world, *settings, "compare.lrs.adamw=[8e-3]", monkeypatch=monkeypatch)
    found = row(summarise({made.folder: made.design}), "adamw").found
    assert found.best == 1e-3 and list(found.scores) == [1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3, 8e-3]
    again = make_comparison(tmp_path, world, *settings, monkeypatch=monkeypatch)
    assert again.design.grids == made.design.grids, "without rates of its own a command keeps the grid that there is"


def test_a_run_that_fails_ends_the_command_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(running, "start_all", lambda runs, launcher: {run.name: 7 for run in runs})
    assert main([f"run.dir={tmp_path}", *SETTINGS, *THREE]) == 7
    assert "has not come to its end (exit code 7); the same command goes on" in capsys.readouterr().err


def test_files_of_a_kill_do_not_stop_the_comparison(made, tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    (folder / RUN / "metrics.jsonl").write_text('{"kind": "sta')
    assert row(summarise({folder: made.design}), "came").word == "not finished"
    (folder / RUN / "config.yaml").write_text("")
    (folder / RUN / "metrics.jsonl").write_text((made.folder / RUN / "metrics.jsonl").read_text())
    assert main(["--table", str(folder)]) == 2
    assert "config.yaml cannot be read; put the file back" in capsys.readouterr().err
    (folder / designs.FILE).write_bytes(b"\xff\xfe")
    assert main(["--table", str(folder)]) == 2
    assert "cannot be read; delete it, and the comparison's whole command finds its runs again" in capsys.readouterr().err


def test_two_commands_cannot_be_at_work_on_one_comparison(tmp_path: Path, capsys: pytest.CaptureFixture):
    command = [f"run.dir={tmp_path}", *SETTINGS, *THREE]
    with running.begun(read_command(command, None), None) as comparison:
        before = (comparison.folder / designs.FILE).read_text()
        assert main([*command, "compare.seeds=9"]) == 2
    assert (comparison.folder / designs.FILE).read_text() == before
    assert "another command is at work on" in capsys.readouterr().err


def test_runs_that_jobs_still_train_are_not_started_again(tmp_path: Path, capsys: pytest.CaptureFixture):
    command = [f"run.dir={tmp_path}", *SETTINGS, *THREE]
    with running.begun(read_command(command, None), None) as comparison:
        run = comparison.run(running.wanted(comparison, {})[0])
    held = RunFolder.of(run.config).lock()
    assert main(command) == 2
    assert f"1 of its runs are still being trained ({run.name})" in capsys.readouterr().err
    held.release()
