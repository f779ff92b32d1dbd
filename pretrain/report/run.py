"""A run as the reports see it: its settings, its curves as columns, its state."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pretrain.metrics import Line, last

AXES = ("step", "tokens", "wall_seconds")
"""What a curve can be drawn over: applied updates, tokens seen, seconds since the run began (earlier processes included)."""

_NOT_CURVES = {*AXES, "samples"}

FINISHED, RUNNING, DIVERGED, STOPPED, KILLED = "finished", "running", "diverged", "stopped", "killed"
"""The states: at its end; going on; given up after skipped steps; stopped on request; ended without a word."""


@dataclass(frozen=True, eq=False)
class Track:
    """The lines of one kind as columns of equal length, in the order of the run."""

    axes: dict[str, np.ndarray]
    """Each of `AXES`, float64 [lines]."""
    metrics: dict[str, np.ndarray]
    """Every number that the lines hold, by its name; float64 [lines], NaN where a line lacks it."""

    def __len__(self) -> int:
        return len(self.axes["step"])

    def last(self, metric: str) -> float | None:
        """The newest value there is."""
        return _known(self.metrics.get(metric), lambda values: values[-1])

    def median(self, metric: str) -> float | None:
        return _known(self.metrics.get(metric), np.median)

    def largest(self, metric: str) -> float | None:
        return _known(self.metrics.get(metric), np.max)


@dataclass(frozen=True, eq=False)
class Run:
    """One run, from wherever it was read."""

    name: str
    """Unique among the runs that are compared."""
    settings: dict[str, Any]
    """The configuration, flat: `optimizer.lr`; empty where it is not known."""
    made_with: dict[str, Any]
    """Ranks, library versions, git commit and the fingerprint of the data, as far as they are known."""
    train: Track
    evals: Track
    state: str
    step: int
    num_steps: int | None
    wall_seconds: float
    skipped_steps: int
    unigram_loss: float | None
    lives: tuple[dict[str, Any], ...] = ()
    """`made_with` of each of its processes, oldest first: a run that went on may have done so on another machine, or with other code."""

    @property
    def objective(self) -> str:
        """`mlm`, `mlm_nsp`, `clm`: scores of different objectives cannot be compared; `unknown` where nothing says it."""
        return str(self.settings.get("objective.kind") or ("clm" if "perplexity" in self.evals.metrics else "unknown"))

    @property
    def optimizer(self) -> str:
        return str(self.settings.get("optimizer.name", ""))


def run_of(name: str, lines: list[Line], config: dict[str, Any], state: str) -> Run:
    """A run from the lines that stand and its configuration, nested or empty."""
    start, resume = last(lines, "start") or {}, last(lines, "resume") or {}
    plan = start.get("plan") or {}
    settings = dict(flat(config)) or _settings_of_plan(plan)
    newest = {name: line[name] for line in lines for name in ("step", "wall_seconds", "skipped_steps") if line.get(name) is not None}
    newest["step"] = max((line.get("step", 0) for line in lines if line["kind"] != "skip"), default=0)  # a skipped step was not taken
    return Run(
        name=name,
        settings=settings,
        made_with=_made_with(start | resume, resume.get("ranks", plan.get("ranks"))),
        train=_track(line for line in lines if line["kind"] == "train"),
        evals=_track(line for line in lines if line["kind"] == "eval"),
        state=state,
        step=int(newest["step"]),
        num_steps=settings.get("train.num_steps", plan.get("steps")),
        wall_seconds=float(newest.get("wall_seconds", 0.0)),
        skipped_steps=int(newest.get("skipped_steps", 0)),
        unigram_loss=start.get("unigram_loss"),
        lives=tuple(_made_with(line, line.get("ranks", plan.get("ranks"))) for line in lines if line["kind"] in ("start", "resume")),
    )


def flat(config: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Names with dots and their values; what is no mapping, an empty one too, is a value."""
    for name, value in config.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _track(lines: Iterable[Line]) -> Track:
    lines = list(lines)
    names = dict.fromkeys(name for line in lines for name in line)
    found = {name: column for name in names if (column := _column([line.get(name) for line in lines])) is not None}
    nothing = np.full(len(lines), np.nan)
    return Track(
        {name: found.get(name, nothing) for name in AXES}, {name: column for name, column in found.items() if name not in _NOT_CURVES}
    )


def _column(values: list[Any]) -> np.ndarray | None:
    """float64 [lines]; None where none of the values is a number."""
    kinds = set(map(type, values))
    if not kinds & {int, float}:
        return None
    if kinds <= {int, float, type(None)}:
        return np.array(values, dtype=np.float64)
    return np.array([value if type(value) in (int, float) else np.nan for value in values], dtype=np.float64)


def _known(values: np.ndarray | None, reduce: Any) -> float | None:
    if values is None:
        return None
    values = values[np.isfinite(values)]
    return float(reduce(values)) if values.size else None


def _hash_of(origin: dict[str, Any] | None) -> str | None:
    """Of the weights that a run began with, where they came from elsewhere."""
    if not origin:
        return None
    return str(origin.get("manifest_sha256") or origin.get("sha256") or origin.get("revision"))


def _made_with(line: Line, ranks: int | None) -> dict[str, Any]:
    git = line.get("git") or {}
    about = {
        "ranks": ranks,
        "device": line.get("device"),
        "data_fingerprint": line.get("data_fingerprint"),
        "init_from": _hash_of(line.get("init_from")),
        "git.commit": git.get("commit"),
        "git.dirty": git.get("dirty"),
    }
    versions = {f"versions.{name}": value for name, value in (line.get("versions") or {}).items()}
    return {name: value for name, value in {**about, **versions}.items() if value is not None}


def _settings_of_plan(plan: dict[str, Any]) -> dict[str, Any]:
    """What the first line says of the settings, for a run without its config.yaml."""
    named = {
        "model": "model.name",
        "objective": "objective.kind",
        "sequence_length": "data.max_seq_length",
        "learning_rate": "optimizer.lr",
        "schedule": "schedule.kind",
        "zero_stage": "zero.stage",
        "zero_offload": "zero.offload",
        "micro_batch_size": "train.micro_batch_size",
        "global_batch_size": "train.global_batch_size",
        "steps": "train.num_steps",
    }
    found = {setting: plan[name] for name, setting in named.items() if name in plan}
    return found | ({"optimizer.name": plan["optimizer"].lower()} if "optimizer" in plan else {})
