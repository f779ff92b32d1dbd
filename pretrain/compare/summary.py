"""What a comparison shows: for each variant its best rate, its scores over the seeds, its cost, and whether it differs from AdamW."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pretrain.compare.design import Design, merged
from pretrain.compare.outcomes import Outcome, Outcomes, read_outcomes, told_of_the_machines
from pretrain.compare.search import Found, Trial, scores_of, search
from pretrain.report.comparison import PROVENANCE, shown
from pretrain.report.scores import ACCURACY, LOSS, PERPLEXITY, first_reach
from pretrain.report.significance import Difference, difference, holm

TEST = "Welch's t-test, two-sided, Holm-adjusted"
_LEVEL = 0.05


@dataclass(frozen=True)
class Row:
    """One variant; the figures over seeds are those of its best rate."""

    variant: str
    found: Found
    """The learning-rate search, by the first seed."""
    outcomes: tuple[Outcome, ...]
    """Of the best rate, one per seed that has ended; in the order of the seeds."""
    seeds: int
    """How many there are to be."""
    against: Difference | None = None
    """Final validation loss: this minus the baseline's; None of the baseline and while a side has no run."""
    p: float | None = None
    """By `TEST`, over all rows that are held against the baseline."""
    is_baseline: bool = False
    target: float | None = None
    """The baseline's mean final loss, which the steps and tokens are counted to."""

    @property
    def optimizer(self) -> str:
        return self.outcomes[0].run.optimizer if self.outcomes else ""

    @property
    def losses(self) -> list[float]:
        """Final validation loss of each seed, nats per target; without those that diverged."""
        return [outcome.loss for outcome in self.outcomes if outcome.loss is not None]

    def finals(self, metric: str) -> list[float]:
        return [value for outcome in self.outcomes if (value := outcome.final(metric)) is not None]

    @property
    def diverged_rates(self) -> list[float]:
        return [rate for rate, score in self.found.scores.items() if score is None]

    @property
    def diverged_seeds(self) -> int:
        return sum(outcome.loss is None for outcome in self.outcomes)

    @property
    def steps_to_target(self) -> list[int]:
        """Of the seeds that reached it: the first evaluation at the target or better."""
        if self.target is None:
            return []
        reached = (first_reach(outcome.run, LOSS, self.target) for outcome in self.outcomes if outcome.loss is not None)
        return [found.step for found in reached if found]

    def median(self, metric: str) -> float | None:
        """Over the runs, each run's own median."""
        values = [value for outcome in self.outcomes if (value := outcome.run.train.median(metric)) is not None]
        return float(np.median(values)) if values else None

    def largest(self, metric: str) -> float | None:
        return max((value for outcome in self.outcomes if (value := outcome.run.train.largest(metric)) is not None), default=None)

    @property
    def word(self) -> str:
        """better, worse, no difference shown, one seed does not tell, reference, diverged, not finished."""
        if not self.losses:
            return "diverged" if self.found.scores and not self.found.wanted and self.found.best is None else "not finished"
        if self.is_baseline:
            return "reference"
        if self.against is None:
            return "not finished"
        if self.p is None:
            return "one seed does not tell"
        if self.p > _LEVEL:
            return "no difference shown"
        return "better" if self.against.mean < 0 else "worse"


@dataclass(frozen=True)
class Summary:
    """A comparison as it stands."""

    title: str
    head: tuple[str, ...]
    """What is equal, and what is not."""
    rows: tuple[Row, ...]
    """The best first, those without a score last."""
    notes: tuple[str, ...]
    score: str
    """The second score's name in the `eval` lines: MLM accuracy, or perplexity."""

    @property
    def baseline(self) -> Row | None:
        return next((row for row in self.rows if row.is_baseline), None)


def summarise(designs: Mapping[Path, Design]) -> Summary:
    """Raises UserError where the comparisons, or two runs, are not equal."""
    design = merged(designs)
    outcomes = read_outcomes(designs)
    rows = ranked([_row(name, design, outcomes) for name in design.variants])
    perplexity = any(row.finals(PERPLEXITY.name) for row in rows)
    return Summary(
        ", ".join(folder.resolve().name for folder in designs),
        tuple(_head(design, outcomes)),
        tuple(rows),
        tuple(_notes(design, outcomes, rows)),
        PERPLEXITY.name if perplexity else ACCURACY.name,
    )


def _row(name: str, design: Design, outcomes: Outcomes) -> Row:
    found = search(design.variants[name].grid, scores_of(name, design.seeds[0], outcomes.losses))
    trials = [Trial(name, found.best, seed) for seed in design.seeds] if found.best is not None else []
    return Row(name, found, tuple(outcomes.ended[trial] for trial in trials if trial in outcomes.ended), len(design.seeds))


def ranked(rows: list[Row]) -> list[Row]:
    """Held against the baseline, and in the order of their mean losses. The baseline is `adamw`, else the best AdamW, else the best."""
    scored = sorted((row for row in rows if row.losses), key=lambda row: float(np.mean(row.losses)))
    adamw = [row for row in scored if row.variant == "adamw"] or [row for row in scored if row.optimizer == "adamw"]
    baseline = (adamw or scored or [None])[0]
    if baseline is None:
        return rows
    target = float(np.mean(baseline.losses))
    held = [
        replace(
            row, is_baseline=row is baseline, target=target, against=None if row is baseline else difference(row.losses, baseline.losses)
        )
        for row in scored
    ]
    tested = [place for place, row in enumerate(held) if row.against is not None and row.against.p is not None]
    for place, p in zip(tested, holm([held[place].against.p for place in tested]), strict=True):
        held[place] = replace(held[place], p=p)
    return [*held, *(row for row in rows if not row.losses)]


def _head(design: Design, outcomes: Outcomes) -> list[str]:
    get = design.shared.get
    steps, batch, length = (get(name) for name in ("train.num_steps", "train.global_batch_size", "data.max_seq_length"))
    lines = [
        f"model {get('model.name')}, objective {get('objective.kind')}: {steps:,} steps of {batch:,} sequences of {length} tokens, "
        f"{steps * batch * length:,} tokens in all; schedule {get('schedule.kind')}, warm-up {get('schedule.warmup_ratio'):g} of the steps; "
        f"precision {get('train.precision')}; seeds {', '.join(map(str, design.seeds))}",
        "equal in all runs: the tokens, their order and masks, the model and (for each seed) its initial weights, the schedule's shape",
    ]
    for key in dict.fromkeys(key for variant in design.variants.values() for key in variant.settings if not key.startswith("optimizer.")):
        lines += _differing(key, design)
    lines += _differing("optimizer.weight_decay", design)
    for name, values in told_of_the_machines(outcomes.ended.values()).items():
        told = "" if name.startswith(PROVENANCE) else "; changes rounding, time and memory alone"
        lines.append(f"NOT equal: {name} is {' or '.join(map(shown, values))}{told}")
    return lines


def _differing(key: str, design: Design) -> list[str]:
    by_value: dict[str, list[str]] = {}
    for name, variant in design.variants.items():
        by_value.setdefault(shown(variant.settings.get(key)), []).append(name)
    if len(by_value) < 2:
        return []
    return [f"NOT equal: {key} is " + ", ".join(f"{value} for {', '.join(names)}" for value, names in by_value.items())]


def _notes(design: Design, outcomes: Outcomes, rows: list[Row]) -> list[str]:
    notes = []
    if baseline := next((row for row in rows if row.is_baseline), None):
        notes.append(
            f"against {baseline.variant}: {TEST}; the learning rate was chosen by the first seed, which is among the seeds of the mean; "
            f"steps and tokens: to {baseline.variant}'s mean final loss of {np.mean(baseline.losses):.4f}, by evaluations"
        )
    notes += [
        f"{row.variant}: the best rate, {row.found.best:g}, lies at the edge of a grid of {len(row.found.scores)}; a better may lie beyond"
        for row in rows
        if row.found.at_edge and row.found.best is not None
    ]
    notes += [f"{row.variant}: {row.diverged_seeds} of {len(row.outcomes)} seeds diverged" for row in rows if row.diverged_seeds]
    unfinished = [row.variant for row in rows if row.found.wanted or len(row.outcomes) < row.seeds]
    if unfinished:
        notes.append(f"NOT finished: {', '.join(unfinished)}; the same command goes on")
    return notes
