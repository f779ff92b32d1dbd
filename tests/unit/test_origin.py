"""Which run a model comes from, by where it lies."""

from pathlib import Path

import pytest

from pretrain.config.compose import compose
from pretrain.errors import UserError
from pretrain.origin import trained_length
from pretrain.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Claimed, with the folders of a checkpoint and an export."""
    found = RunFolder(tmp_path / "mine")
    found.claim(compose(["data.max_seq_length=24"]))
    found.checkpoint(2).mkdir(parents=True)
    found.export.mkdir()
    return found


def test_a_run_its_checkpoints_and_its_export_know_the_length_that_was_trained(run: RunFolder) -> None:
    assert [trained_length(folder) for folder in (run.path, run.checkpoint(2), run.export)] == [24, 24, 24]


def test_another_model_does_not_even_beside_a_run(run: RunFolder, tmp_path: Path) -> None:
    for folder in (tmp_path / "elsewhere", run.path / "other"):
        folder.mkdir()
        assert trained_length(folder) is None
    run.config.unlink()
    assert trained_length(run.checkpoint(2)) is None


def test_a_configuration_of_another_version_is_one_line(run: RunFolder) -> None:
    run.config.write_text("data: 3\n")
    with pytest.raises(UserError, match="config.yaml is not a configuration that this version can read; put the run's own back"):
        trained_length(run.export)
