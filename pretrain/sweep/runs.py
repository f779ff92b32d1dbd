"""The runs of a sweep, composed, named and checked, all of them before the first one starts."""

import dataclasses
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pretrain.batch_plan import BatchPlan
from pretrain.config.compose import compose
from pretrain.config.consistency import check_runnable
from pretrain.config.expand import expand
from pretrain.config.schema import Config
from pretrain.config.serialise import to_yaml
from pretrain.errors import UserError
from pretrain.run_folder import RunFolder
from pretrain.sweep.names import run_name
from pretrain.user_path import user_path


@dataclass(frozen=True)
class Run:
    """One run of a sweep."""

    config: Config
    """With its own run.name."""
    differences: tuple[str, ...]
    """Those of its overrides that not all runs of the sweep have."""

    @property
    def name(self) -> str:
        return self.config.run.name

    @property
    def folder(self) -> Path:
        return RunFolder.of(self.config).path

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """A UserError from the block says that it is about this run."""
        try:
            yield
        except UserError as error:
            if not self.differences:
                raise
            raise UserError(f"in the run {' '.join(self.differences)}: {error}") from error

    def check(self, world_size: int | None, on_gpu: bool) -> None:
        """What can be known of it before it starts; None: how many ranks there will be is not. Changes nothing."""
        with self.blamed():
            if world_size is not None:
                BatchPlan.of(self.config.train, world_size)
            if not self.config.run.dry_run:
                check_runnable(self.config, on_gpu)
                RunFolder.of(self.config).inspect(self.config)


def compose_runs(overrides: list[str], config_dir: str | None = None) -> list[Run]:
    """The runs that `overrides` ask for. Raises UserError for a mistake in any of them, or where two would share a folder."""
    expanded = expand(overrides, config_dir)
    common = set.intersection(*map(set, expanded))
    runs: dict[Path, Run] = {}
    for single in expanded:
        run = _composed(single, tuple(override for override in single if override not in common), config_dir)
        if run.folder in runs:
            raise UserError(_same(runs[run.folder], run))
        runs[run.folder] = run
    return list(runs.values())


def _same(first: Run, second: Run) -> str:
    values = [[value for value in run.differences if value not in other.differences] for run, other in ((first, second), (second, first))]
    return (
        f"{' '.join(values[0])} and {' '.join(values[1])} change no number, so that both would be the run {first.folder}; "
        "give them in commands of their own, each with its run.name"
    )


def _composed(overrides: list[str], differences: tuple[str, ...], config_dir: str | None) -> Run:
    with Run(Config(), differences).blamed():
        config = compose(overrides, config_dir)
        named = dataclasses.replace(config.run, name=run_name(overrides, config, config_dir))
        return Run(dataclasses.replace(config, run=named), differences)


def write_files(runs: list[Run]) -> tuple[Path, dict[str, Path]]:
    """(the sweep's folder, the file with the whole configuration of each run by its name), absolute.

    The folder is named by what is in it, so that no other command changes a file that a waiting run has still to read.
    """
    texts = {run.name: to_yaml(run.config) for run in runs}
    digest = hashlib.sha256("\0".join(sorted(texts.values())).encode()).hexdigest()[:12]
    folder = user_path(runs[0].config.run.dir, "run.dir=").absolute() / ".sweeps" / digest
    files = {name: folder / f"{name}.yaml" for name in texts}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            files[name].write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"the sweep's folder {folder} cannot be written ({error.strerror}); give another run.dir") from error
    return folder, files
