"""From what the user names to the runs that are there: run folders, folders of them, metrics.jsonl or offline .wandb files."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from pretrain.errors import UserError
from pretrain.metrics import Line, last, read_metrics, standing
from pretrain.report.run import Run, run_of
from pretrain.report.state import state_of
from pretrain.report.wandb_file import WandbFile
from pretrain.user_path import user_path
from pretrain.wandb_follower import SEED_GROUP

_METRICS, _CONFIG, _LOCK = "metrics.jsonl", "config.yaml", ".lock"


@dataclass(frozen=True)
class Source:
    """Where one run's curves lie: its metrics.jsonl, or its offline .wandb files, oldest first."""

    folder: Path
    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def version(self) -> tuple:
        """Changes when the files do."""
        return tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in self.files)

    def read(self) -> Run:
        """Raises UserError where the files are none of a run's."""
        if self.files[0].suffix == ".wandb":
            return _read_wandb(self.name, self.files)
        return _read_metrics(self.name, self.files[0])


def sources(paths: Iterable[str | Path]) -> list[Source]:
    """The runs behind `paths`, each once, in their order; a folder of several stands for all in it. Raises UserError."""
    found: dict[tuple, Source] = {}
    for path in map(user_path, paths):
        try:
            there = _sources_at(path)
        except OSError as error:
            raise UserError(f"{error.filename or path} cannot be read ({error.strerror}); see to its permissions") from error
        for source in there:
            found.setdefault(tuple(file.resolve() for file in source.files), source)
    return list(found.values())


def read_runs(paths: Iterable[str | Path]) -> list[Run]:
    """The runs behind `paths` with names that tell them apart. Raises UserError."""
    found = sources(paths)
    return with_unique_names(found, [source.read() for source in found])


def with_unique_names(found: list[Source], runs: list[Run]) -> list[Run]:
    """Two runs of one name get their folders' names in front."""
    times = Counter(run.name for run in runs)
    unique = [
        replace(run, name=f"{source.folder.resolve().parent.name}/{run.name}") if times[run.name] > 1 else run
        for source, run in zip(found, runs, strict=True)
    ]
    seen: Counter = Counter()
    for place, run in enumerate(unique):
        seen[run.name] += 1
        if seen[run.name] > 1:
            unique[place] = replace(run, name=f"{run.name} ({seen[run.name]})")
    return unique


def read_run(folder: Path) -> Run | None:
    """The run in `folder`, by its metrics.jsonl; None where that has no whole line. Raises UserError where it cannot be read."""
    path = folder / _METRICS
    lines = _lines(path)
    return _run_of_lines(folder.name, lines, path) if lines else None


def _sources_at(path: Path) -> list[Source]:
    if not path.exists():
        raise UserError(f"{path} does not exist; give a run's folder (runs/NAME), or a folder that holds several")
    if path.is_file():
        if path.suffix == ".wandb":
            return [Source(path.parent, (path,))]
        if path.suffix == ".jsonl":
            return [Source(path.absolute().parent, (path,))]
        raise UserError(f"{path} is no run; give a run's folder, its metrics.jsonl, or an offline .wandb file")
    inside = _sources_in(path) or [found for folder in sorted(path.iterdir()) if folder.is_dir() for found in _sources_in(folder)]
    if not inside:
        raise UserError(f"{path} is no run and holds none (no metrics.jsonl, no .wandb file); give a run's folder, such as runs/NAME")
    return inside


def _sources_in(folder: Path) -> list[Source]:
    """A run's folder holds one run; a wandb/ folder, or one that has one, holds one for each id."""
    if (folder / _METRICS).is_file():
        return [Source(folder, (folder / _METRICS,))]
    by_id: dict[str, list[Path]] = {}
    for pattern in ("run-*.wandb", "*run-*/run-*.wandb", "wandb/*run-*/run-*.wandb"):
        for file in sorted(folder.glob(pattern)):
            if not file.parent.is_symlink():  # latest-run
                by_id.setdefault(file.name, []).append(file)
    return [Source(folder, tuple(files)) for files in by_id.values()]


def _read_metrics(name: str, path: Path) -> Run:
    lines = _lines(path)
    if not lines and path.stat().st_size:
        raise UserError(f"{path} holds no line of a run; give the metrics.jsonl that python -m pretrain wrote")
    return _run_of_lines(name, lines, path)


def _lines(path: Path) -> list[Line]:
    """Those that stand; none where the file is not a run's. Raises UserError where it cannot be read."""
    try:
        return read_metrics(path)
    except (KeyError, TypeError, AttributeError):
        return []
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); see to its permissions") from error


def _run_of_lines(name: str, lines: list[Line], path: Path) -> Run:
    return run_of(name, lines, _config(path.parent / _CONFIG), state_of(lines, path, path.parent / _LOCK))


def _config(path: Path) -> dict[str, Any]:
    """Plain values, unchecked: a run of another version can be looked at too. Nothing where there is none."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def _read_wandb(name: str, paths: tuple[Path, ...]) -> Run:
    """A run that went on has one file for each time, all of one id."""
    files = [WandbFile(path) for path in paths]
    newest = files[-1]
    files = [file for file in files if file.run_id == newest.run_id]
    about = {key: value for key in ("plan", "versions", "git") if (value := newest.config.pop(key, None))}
    newest.config.pop(SEED_GROUP, None)  # W&B's alone
    recorded: list[Line] = [line for file in files for line in file.lines]
    lines = standing([{"kind": "start"} | about | (last(recorded, "start") or {}), *(line for line in recorded if line["kind"] != "start")])
    return run_of(newest.name or name, lines, newest.config, state_of(lines, paths[-1], closed=newest.closed))
