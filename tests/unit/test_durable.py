"""Folders that are there whole or not at all."""

from pathlib import Path

import pytest

from pretrain import durable


def test_a_new_folder_takes_the_place_of_the_old_one_once_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "some" / "folder"
    for content in ("first", "second"):
        with durable.new_folder(folder) as new:
            (new / content).write_text(content)
            assert not (folder / content).exists()
        assert [path.name for path in folder.iterdir()] == [content]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_where_it_fails_the_old_one_stays_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    (tmp_path / "folder.tmp").mkdir()
    (tmp_path / "folder.tmp" / "of a killed one").touch()
    with pytest.raises(error), durable.new_folder(tmp_path / "folder") as new:
        assert not list(new.iterdir())
        (new / "half").touch()
        raise error
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "old"]
