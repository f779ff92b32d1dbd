"""What is evaluated: a model and, where it is one of ours, the run that it comes from."""

from dataclasses import dataclass
from pathlib import Path

from pretrain.checkpoint.opening import is_checkpoint, is_run
from pretrain.config.schema import Config
from pretrain.config.serialise import from_yaml
from pretrain.errors import UserError
from pretrain.loading import Loaded
from pretrain.metrics import last, read_metrics
from pretrain.run_folder import RunFolder


@dataclass(frozen=True)
class Run:
    """What its folder says of a run."""

    config: Config
    data_fingerprint: str | None
    """Of the prepared data that it was trained on; None where its metrics are gone."""


@dataclass(frozen=True)
class Subject:
    """A model to be evaluated."""

    name: str
    """As the user gave it."""
    loaded: Loaded
    run: Run | None

    @property
    def description(self) -> str:
        """Name, kind and size."""
        model = self.loaded.model
        return f"{self.name} ({type(model).__name__}, {sum(parameter.numel() for parameter in model.parameters()):,} parameters)"


def run_of(folder: Path) -> Run | None:
    """The run that the model in `folder`, as `pretrain.loading.find_model` gives it, belongs to by where it lies."""
    if is_checkpoint(folder):
        found = RunFolder(folder.resolve().parents[1])
    elif is_run(folder):
        found = RunFolder(folder)
    else:
        found = RunFolder(folder.resolve().parent)
        if found.export.resolve() != folder.resolve():
            return None
    if not found.config.exists():
        return None
    start = last(read_metrics(found.metrics), "start")
    try:
        config = from_yaml(found.config.read_text(encoding="utf-8", errors="replace"))
    except UserError as error:
        raise UserError(f"{found.config} is not a configuration that this version can read; put the run's own back") from error
    return Run(config, start["data_fingerprint"] if start else None)
