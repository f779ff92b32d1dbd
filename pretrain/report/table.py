"""The table of runs: what each column holds, and the table as text for the terminal, as CSV and as Markdown."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pretrain.report import cells
from pretrain.report.comparison import SEED, differing, distinguishing, groups_of, of_mixed_data, settings_of, shared, shown
from pretrain.report.run import FINISHED, Run
from pretrain.report.scores import ACCURACY, LOSS, PERPLEXITY, first_reach, targets
from pretrain.report.verdict import verdicts


@dataclass(frozen=True)
class Column:
    """One of the table's columns."""

    key: str
    """As in CSV, with the unit."""
    title: str
    value: Callable[[Run], Any]
    """The plain value, in the unit of `key`; None where there is none."""
    text: Callable[[Any], str] = str
    """The value as people read it."""
    told: str = ""
    """What it is, where the title does not say it all."""
    is_setting: bool = False

    @property
    def is_left(self) -> bool:
        """Words stand to the left, numbers to the right."""
        return self.is_setting or self.key in ("run", "state")

    def cell(self, run: Run) -> tuple[Any, str]:
        value = self.value(run)
        return value, "-" if value is None else self.text(value)


def columns(runs: list[Run], every_setting: bool = False) -> list[Column]:
    """Those that say something of at least one of the runs: the usual ones, and settings that are needed to tell the runs apart, or, with
    `every_setting`, all that differ."""
    known = [column.key for column in _SETTINGS]
    alike = [[run for run in runs if run.objective == objective] for objective in dict.fromkeys(run.objective for run in runs)]
    names = differing(runs) if every_setting else dict.fromkeys(name for some in alike for name in distinguishing(some))
    extra = [
        Column(name, _short(name), lambda run, name=name: settings_of(run).get(name), shown, told=name, is_setting=True)
        for name in names
        if name not in known
    ]
    progress = [] if all(run.state == FINISHED for run in runs) else [_PROGRESS]
    found = [_NAME, _STATE, *progress, *_SETTINGS, *extra, *_RESULTS]
    return [column for column in found if any(column.value(run) is not None for run in runs)]


def reach_columns(runs: list[Run], given: float | None) -> list[Column]:
    """When each run's validation loss reached the target of its objective."""
    wanted = targets(runs, given)

    def value(run: Run, name: str) -> Any:
        target = wanted[run.objective]
        reached = first_reach(run, LOSS, target) if target is not None else None
        return reached and getattr(reached, name)

    if not any(target is not None for target in wanted.values()):
        return []
    return [
        Column("steps_to_target", "steps to target", lambda run: value(run, "step"), "{:,}".format),
        Column("hours_to_target", "hours to target", lambda run: value(run, "hours"), hours_text),
    ]


def as_text(runs: list[Run], target: float | None = None) -> str:
    """For a terminal: what is the same in all runs stands in one line below, not in columns."""
    rows, left, notes = _cells(runs, target)
    return "\n".join([*cells.aligned(rows, left), *([""] if notes else []), *map(cells.printable, notes)])


def as_markdown(runs: list[Run], target: float | None = None) -> str:
    rows, left, notes = _cells(runs, target)
    return "\n".join([*cells.markdown(rows, left), *(f"\n{cells.escaped(note)}" for note in notes)])


def _cells(runs: list[Run], target: float | None) -> tuple[list[list[str]], list[bool], list[str]]:
    """(the head and a row per run, which columns stand to the left, what has to be said besides)."""
    kept, notes = _compact(runs, target)
    rows = [[column.title for column in kept], *([column.cell(run)[1] for column in kept] for run in runs)]
    return rows, [column.is_left for column in kept], notes


def as_csv(runs: list[Run], target: float | None = None) -> str:
    """Every column, plain values: bytes, seconds, full precision."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    kept = [*columns(runs, every_setting=True), *reach_columns(runs, target)]
    writer.writerow(column.key for column in kept)
    writer.writerows(["" if (value := column.value(run)) is None else value for column in kept] for run in runs)
    return output.getvalue().rstrip("\n")


def _compact(runs: list[Run], target: float | None) -> tuple[list[Column], list[str]]:
    """The columns worth their width, and what has to be said besides."""
    every = columns(runs)
    same = shared(runs, [column.key for column in every if column.is_setting]) if len(runs) > 1 else {}
    kept = [column for column in every if column.key not in same]
    shown_keys = [column.key for column in kept]
    others = [name for name in differing(runs) if name not in shown_keys]
    notes = []
    if same:
        notes.append("the same in all: " + ", ".join(f"{_short(name)} {shown(value)}" for name, value in same.items()))
    if others:
        notes.append("also different: " + ", ".join(map(_short, others)))
    if mixed := of_mixed_data(runs):
        notes.append(f"the prepared data differ within {', '.join(mixed)}: losses there may not be on one scale")
    if known := {objective: wanted for objective, wanted in targets(runs, target).items() if wanted is not None}:
        named = [f"{wanted:.6g}" + (f" ({objective})" if len(known) > 1 else "") for objective, wanted in known.items()]
        notes.append(f"target: validation loss {', '.join(named)}")
    notes += [verdict.sentence for verdict in verdicts(groups_of(runs))]
    return [*kept, *reach_columns(runs, target)], notes


def bytes_text(value: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 1000 * size else f"{value / size:,.0f} {unit}"
    return f"{value:.0f} B"


def hours_text(hours: float) -> str:
    return f"{hours:.2f}" if hours >= 0.1 else f"{hours:.4f}"


def _short(name: str) -> str:
    """`optimizer.beta2` -> `beta2`; what needs its part to be understood keeps it."""
    part, _, last = name.rpartition(".")
    return name if last in ("name", "kind", "stage", "path", "commit", "dirty") or part == "versions" else last


def _setting(name: str) -> Callable[[Run], Any]:
    return lambda run: settings_of(run).get(name)


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


_NAME = Column("run", "run", lambda run: run.name)
_STATE = Column("state", "state", lambda run: run.state)
_PROGRESS = Column("progress", "done", lambda run: run.step / run.num_steps if run.num_steps else None, "{:.0%}".format, "of the steps")
_SETTINGS = [
    Column("optimizer.name", "optimizer", _setting("optimizer.name"), is_setting=True),
    Column("optimizer.lr", "lr", _setting("optimizer.lr"), shown, "peak learning rate", is_setting=True),
    Column(SEED, "seed", _setting(SEED), is_setting=True),
    Column("ranks", "ranks", _setting("ranks"), is_setting=True),
    Column("zero.stage", "stage", _setting("zero.stage"), told="ZeRO stage", is_setting=True),
    Column("objective.kind", "objective", _setting("objective.kind"), is_setting=True),
]
_RESULTS = [
    Column("step", "step", lambda run: run.step, "{:,}".format, "applied updates"),
    Column("loss", "loss", lambda run: run.evals.last(LOSS.name), "{:.4f}".format, "newest validation loss, nats per target"),
    Column("mlm_accuracy", "accuracy", lambda run: run.evals.last(ACCURACY.name), _share, "argmax at the masked positions, newest"),
    Column("perplexity", "perplexity", lambda run: run.evals.last(PERPLEXITY.name), "{:,.2f}".format, "of the validation text, newest"),
    Column("tokens_per_second", "tokens/s", lambda run: run.train.median("tokens_per_second"), "{:,.0f}".format, "median over the run"),
    Column("mfu", "MFU", lambda run: run.train.median("mfu"), _share, "model FLOPs utilisation, median over the run"),
    Column(
        "memory_peak_bytes",
        "peak mem",
        lambda run: run.train.largest("memory_peak_bytes"),
        bytes_text,
        "most memory of any rank; on a CPU the process",
    ),
    Column(
        "memory_optimizer_bytes",
        "opt mem",
        lambda run: run.train.largest("memory_optimizer_bytes"),
        bytes_text,
        "optimizer state, largest over ranks",
    ),
    Column("hours", "hours", lambda run: run.wall_seconds / 3600, hours_text, "wall time, earlier processes included"),
    Column("skipped_steps", "skipped", lambda run: run.skipped_steps, "{:,}".format, "steps that were not applied"),
]
