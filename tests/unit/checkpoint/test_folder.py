"""The folder of checkpoints: names appear and disappear in one instant, `latest` moves last, old ones go."""

from pathlib import Path

import pytest

from pretrain.checkpoint.folder import CheckpointFolder


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints")


def publish(folder: CheckpointFolder, *steps: int) -> None:
    for step in steps:
        (folder.begin(step) / "file").write_text(str(step))
        folder.publish(step)


def names(folder: CheckpointFolder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir())


def test_a_folder_that_is_not_there_holds_nothing(folder: CheckpointFolder) -> None:
    assert folder.all() == [] and folder.latest() is None and folder.candidates() == []
    folder.prune(1, 0)
    folder.clean()


def test_what_is_being_written_has_no_name_yet(folder: CheckpointFolder) -> None:
    folder.begin(3)
    assert folder.all() == [] and folder.latest() is None
    assert folder.publish(3) == folder.of_step(3) == folder.latest()
    assert names(folder) == ["latest", "step_00000003"]


def test_steps_are_ordered_as_numbers(folder: CheckpointFolder) -> None:
    publish(folder, 99_999_999, 100_000_000)
    assert [path.name for path in folder.all()] == ["step_99999999", "step_100000000"]


def test_latest_is_tried_first_then_those_before_it(folder: CheckpointFolder) -> None:
    publish(folder, 2, 4, 6)
    (folder.path / "latest").write_text("step_00000004")
    assert folder.candidates() == [folder.of_step(4), folder.of_step(2)]


@pytest.mark.parametrize("text", ["", "step_00000099", "../../etc", "\x00\xff"])
def test_where_latest_names_nothing_all_are_tried(folder: CheckpointFolder, text: str) -> None:
    publish(folder, 2, 4)
    (folder.path / "latest").write_text(text)
    assert folder.candidates() == [folder.of_step(4), folder.of_step(2)]


@pytest.mark.parametrize(
    ("keep_last", "keep_every", "kept"),
    [(0, 0, [1, 2, 3, 4, 5, 6]), (1, 0, [6]), (2, 0, [5, 6]), (2, 3, [3, 5, 6]), (1, 2, [2, 4, 6]), (9, 0, [1, 2, 3, 4, 5, 6])],
)
def test_old_ones_are_removed(folder: CheckpointFolder, keep_last: int, keep_every: int, kept: list[int]) -> None:
    publish(folder, 1, 2, 3, 4, 5, 6)
    folder.prune(keep_last, keep_every)
    assert names(folder) == ["latest", *(f"step_0000000{step}" for step in kept)]


def test_what_latest_names_is_never_removed(folder: CheckpointFolder) -> None:
    publish(folder, 2, 4, 6)
    (folder.path / "latest").write_text("step_00000004")
    folder.prune(1, 0)
    assert folder.all() == [folder.of_step(4), folder.of_step(6)]


def test_a_checkpoint_is_written_anew_under_an_old_name(folder: CheckpointFolder) -> None:
    publish(folder, 2, 4)
    (folder.path / "latest").write_text("step_00000002")
    (folder.begin(4) / "file").write_text("again")
    assert (folder.publish(4) / "file").read_text() == "again" and folder.latest() == folder.of_step(4)


def test_what_a_killed_process_left_is_cleaned_away(folder: CheckpointFolder) -> None:
    publish(folder, 2)
    folder.begin(4)
    folder.clean()
    assert names(folder) == ["latest", "step_00000002"]


def test_a_damaged_one_loses_its_name_and_nothing_else(folder: CheckpointFolder) -> None:
    publish(folder, 2, 4)
    aside = folder.set_aside(folder.of_step(4))
    assert (aside / "file").read_text() == "4" and folder.all() == [folder.of_step(2)]
    folder.clean()
    folder.prune(1, 0)
    assert aside.exists()
