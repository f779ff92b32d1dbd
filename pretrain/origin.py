"""The run that a model comes from, by where the model lies: what the run's folder says of how it was trained."""

from pathlib import Path

from pretrain.checkpoint.opening import is_checkpoint, is_run
from pretrain.config.schema import Config
from pretrain.config.serialise import from_yaml
from pretrain.errors import UserError
from pretrain.run_folder import RunFolder


def run_folder_of(folder: Path) -> RunFolder | None:
    """The folder of the run that the model in `folder`, as `pretrain.loading.find_model` gives it, belongs to; None where there is none, or
    it has lost its configuration."""
    if is_checkpoint(folder):
        found = RunFolder(folder.resolve().parents[1])
    elif is_run(folder):
        found = RunFolder(folder)
    else:
        found = RunFolder(folder.resolve().parent)
        if found.export.resolve() != folder.resolve():
            return None
    return found if found.config.exists() else None


def config_of(run: RunFolder) -> Config:
    """What the run was told. Raises UserError where this version cannot read it."""
    try:
        return from_yaml(run.config.read_text(encoding="utf-8", errors="replace"))
    except UserError as error:
        raise UserError(f"{run.config} is not a configuration that this version can read; put the run's own back") from error


def trained_length(folder: Path) -> int | None:
    """Tokens of the sequences with which its run trained the model in `folder`, and left the positions behind them as they were; None where
    the model is not a run's. Raises UserError as `config_of` does."""
    run = run_folder_of(folder)
    return config_of(run).data.max_seq_length if run else None
