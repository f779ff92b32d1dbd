"""What a comparison shows: for each variant its best rate, its scores over the seeds, its cost, and whether it differs from AdamW."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.compare.design import Design, Variant, merged
from pretrain.compare.outcomes import Outcome, losses_of, read_outcomes, told_of_the_machines
from pretrain.compare.search import FACTOR, Found, Trial, scores_of, search
from pretrain.config.registry import SCHEMAS
from pretrain.report.comparison import PROVENANCE, shown
from pretrain.report.scores import ACCURACY, LOSS, PERPLEXITY, first_reach
from pretrain.report.significance import Difference, holm, paired_difference

TEST = "paired t-test over the seeds, two-sided, p adjusted by Holm for the number of optimizers"
"""A seed gives all variants the same weights to begin with and the same tokens, so that its luck is theirs alike."""
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
    is_baseline: bool = False
    against: Difference | None = None
    """Final validation loss: this minus the baseline's; None of the baseline, and until both have all their seeds."""
    p: float | None = None
    """By `TEST`, over all rows that are held against the baseline."""
    target: float | None = None
    """The baseline's mean final loss, which the steps and tokens are counted to; None until it has all its seeds."""

    @property
    def losses(self) -> list[float]:
        """Final validation loss of each seed, nats per target; without those that diverged."""
        return self.finals(LOSS.name)

    def finals(self, metric: str) -> list[float]:
        return [value for outcome in self.outcomes if (value := outcome.final(metric)) is not None]

    @property
    def diverged_rates(self) -> list[float]:
        return [rate for rate, score in self.found.scores.items() if score is None]

    @property
    def diverged_seeds(self) -> int:
        return sum(outcome.loss is None for outcome in self.outcomes)

    @property
    def has_ended(self) -> bool:
        """Whether no run of it is still to come."""
        return not self.found.wanted and (self.found.best is None or len(self.outcomes) == self.seeds)

    @property
    def is_whole(self) -> bool:
        """Whether it has a score with every seed: only such rows are judged."""
        return self.has_ended and bool(self.outcomes) and not self.diverged_seeds

    @property
    def steps_to_target(self) -> list[int]:
        """Of the seeds that reached it: the first evaluation at the target or better. The baseline's own are whole runs, by definition."""
        if self.target is None:
            return []
        if self.is_baseline:
            return [outcome.run.step for outcome in self.outcomes]
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
        """better, worse, no difference shown, one seed does not tell, reference, diverged, not finished, no reference."""
        if not self.has_ended:
            return "not finished"
        if self.found.best is None:
            return "diverged"
        if self.diverged_seeds:
            return f"diverged ({self.diverged_seeds} of {self.seeds} seeds)"
        if self.is_baseline:
            return "reference"
        if self.against is None:
            return "no reference"
        if self.p is None:
            return "one seed does not tell"
        if self.p > _LEVEL:
            return "no difference shown"
        return "better" if self.against.mean < 0 else "worse"


@dataclass(frozen=True)
class Summary:
    """A comparison as it stands."""

    folders: tuple[Path, ...]
    """As they were given."""
    head: tuple[str, ...]
    """What is equal, and what is not."""
    rows: tuple[Row, ...]
    """Whole ones first, the best of them at the top."""
    notes: tuple[str, ...]
    score: str
    """The second score's name in the `eval` lines: MLM accuracy, or perplexity."""
    baseline: str
    """The variant that the others are held against."""

    @property
    def title(self) -> str:
        return ", ".join(folder.resolve().name for folder in self.folders)


def summarise(designs: Mapping[Path, Design]) -> Summary:
    """Raises UserError where the comparisons, or two runs, are not equal."""
    design = merged(designs)
    outcomes = read_outcomes(designs)
    baseline = baseline_of(design)
    rows = judged([_row(name, design, outcomes) for name in design.variants], baseline)
    perplexity = any(row.finals(PERPLEXITY.name) for row in rows)
    return Summary(
        tuple(designs),
        tuple(_head(design, outcomes, rows)),
        tuple(rows),
        tuple(_notes(design, rows, baseline)),
        PERPLEXITY.name if perplexity else ACCURACY.name,
        baseline,
    )


def baseline_of(design: Design) -> str:
    """`adamw`, else the first variant of AdamW, else the first of all: never chosen by the results."""
    of_adamw = [name for name, variant in design.variants.items() if variant.settings.get("optimizer.name") == "adamw"]
    return "adamw" if "adamw" in of_adamw else [*of_adamw, *design.variants][0]


def _row(name: str, design: Design, outcomes: Mapping[Trial, Outcome]) -> Row:
    found = search(design.variants[name].grid, scores_of(name, design.seeds[0], losses_of(outcomes)))
    trials = [Trial(name, found.best, seed) for seed in design.seeds] if found.best is not None else []
    return Row(name, found, tuple(outcomes[trial] for trial in trials if trial in outcomes), len(design.seeds))


def judged(rows: list[Row], baseline: str) -> list[Row]:
    """Held against the baseline, and in the order of their mean losses, those that are not whole behind."""
    reference = next(row for row in rows if row.variant == baseline)
    if reference.is_whole:
        target = float(np.mean(reference.losses))
        rows = [replace(row, target=target, is_baseline=row is reference) for row in rows]
        rows = [
            replace(row, against=paired_difference(row.losses, reference.losses)) if row.is_whole and not row.is_baseline else row
            for row in rows
        ]
        tested = [place for place, row in enumerate(rows) if row.against is not None and row.against.p is not None]
        for place, p in zip(tested, holm([rows[place].against.p for place in tested]), strict=True):
            rows[place] = replace(rows[place], p=p)
    return sorted(rows, key=lambda row: (not row.is_whole, float(np.mean(row.losses)) if row.losses else np.inf))


def _head(design: Design, outcomes: Mapping[Trial, Outcome], rows: list[Row]) -> list[str]:
    get = design.shared.get
    steps, batch, length = (get(name) for name in ("train.num_steps", "train.global_batch_size", "data.max_seq_length"))
    schedule = f"schedule {get('schedule.kind')}, warm-up {get('schedule.warmup_ratio'):g} of the steps"
    lines = [
        f"model {get('model.name')}, objective {get('objective.kind')}: {steps:,} steps of {batch:,} sequences of {length} tokens, "
        f"{steps * batch * length:,} tokens in all; {schedule}; precision {get('train.precision')}; "
        f"seeds {', '.join(map(str, design.seeds))}",
        "equal in all runs: the tokens, their order and masks, the model and (for each seed) its initial weights, the schedule's shape, "
        "what is evaluated and how often",
    ]
    own = dict.fromkeys(key for variant in design.variants.values() for key in variant.settings)
    for key in [*(key for key in own if not key.startswith("optimizer.")), "optimizer.weight_decay"]:
        lines += _unequal(key, _by_value({name: shown(variant.settings.get(key)) for name, variant in design.variants.items()}))
    lines += _unequal("the number of rates tried", _by_value({row.variant: str(len(row.found.scores)) for row in rows if row.found.scores}))
    for outcome in outcomes.values():
        if outcome.run.skipped_steps and outcome.loss is not None:
            lines.append(
                f"NOT equal: {outcome.trial.name} skipped {outcome.run.skipped_steps} batches, and trained on the next ones instead"
            )
    masks = "dropout's masks, " if get("model.dropout") else ""
    for name, values in told_of_the_machines(outcomes.values()).items():
        told = "" if name.startswith(PROVENANCE) else f"; that changes {masks}rounding, time and memory alone"
        lines += [line + told for line in _unequal(name, values)]
    return lines


def _by_value(values: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in values.items():
        found.setdefault(value, []).append(name)
    return found


def _unequal(what: str, by_value: Mapping[str, list[str]]) -> list[str]:
    if len(by_value) < 2:
        return []
    return [f"NOT equal: {what} is " + ", ".join(f"{value} for {' and '.join(names)}" for value, names in by_value.items())]


def _notes(design: Design, rows: list[Row], baseline: str) -> list[str]:
    notes = [
        f"against {baseline}: {TEST}; in brackets the 95 % interval of each difference by itself; the learning rate was chosen by the "
        "first seed, which is among the seeds of the mean"
    ]
    if target := next((row.target for row in rows), None):
        notes.append(
            f"steps and tokens: until an evaluation is at {baseline}'s mean final loss of {target:.4f} or below, where all seeds are"
        )
    decays = {
        row.variant: row.found.best * design.variants[row.variant].settings["optimizer.weight_decay"] for row in rows if row.found.best
    }
    if any(decays.values()):
        notes.append(
            "weight decay of a step at the peak (lr x weight_decay): " + ", ".join(f"{name} {x:.2g}" for name, x in decays.items())
        )
    for name, variant in design.variants.items():
        if own := not_default(variant):
            notes.append(f"{name}: " + ", ".join(f"{key.removeprefix('optimizer.')} {shown(value)}" for key, value in own.items()))
    for row in rows:
        if row.found.best is None or row.found.wanted:
            continue
        if row.found.at_edge:
            tried = len(row.found.scores)
            notes.append(
                f"{row.variant}: the best rate, {row.found.best:g}, lies at the edge of the {tried} tried; a better may lie beyond"
            )
        elif row.found.gap > 1.01 * FACTOR:
            notes.append(f"{row.variant}: the rates next to the best, {row.found.best:g}, are up to a factor of {row.found.gap:.3g} away")
    unfinished = [row.variant for row in rows if not row.has_ended]
    if unfinished:
        notes.append(f"NOT finished: {', '.join(unfinished)}; the same command goes on")
    return notes


def not_default(variant: Variant) -> dict[str, Any]:
    """The optimizer's settings that are not its schema's defaults, but for its name."""
    defaults = SCHEMAS["optimizer"][variant.settings["optimizer.name"]]()
    own = {key: value for key, value in variant.settings.items() if key.startswith("optimizer.") and key != "optimizer.name"}
    return {key: value for key, value in own.items() if getattr(defaults, key.removeprefix("optimizer."), None) != value}
