"""What is evaluated: a model and, where it is one of ours, the run that it comes from."""

from dataclasses import dataclass
from pathlib import Path

from pretrain.config.schema import Config
from pretrain.loading import Loaded
from pretrain.metrics import last, read_metrics
from pretrain.origin import config_of, run_folder_of


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
    found = run_folder_of(folder)
    if found is None:
        return None
    start = last(read_metrics(found.metrics), "start")
    return Run(config_of(found), start["data_fingerprint"] if start else None)
