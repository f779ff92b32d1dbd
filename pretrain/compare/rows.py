"""The rows of a comparison: for each variant its best rate, its scores over the seeds, its cost, and whether it differs from AdamW."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pretrain.compare.design import Design
from pretrain.compare.outcomes import Outcome, losses_of
from pretrain.compare.search import Found, Trial, scores_of, search
from pretrain.report.scores import LOSS, first_reach
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
    """By `TEST`, over all rows that are held against the baseline or still may be."""
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


def baseline_of(design: Design) -> str:
    """`adamw`, else the first variant of AdamW, else the first of all: never chosen by the results."""
    of_adamw = [name for name, variant in design.variants.items() if variant.settings.get("optimizer.name") == "adamw"]
    return "adamw" if "adamw" in of_adamw else [*of_adamw, *design.variants][0]


def row_of(name: str, design: Design, outcomes: Mapping[Trial, Outcome]) -> Row:
    """Of the variant `name`, not judged yet."""
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
        tests = len(tested) + sum(not row.has_ended for row in rows)
        for place, p in zip(tested, holm([rows[place].against.p for place in tested], tests), strict=True):
            rows[place] = replace(rows[place], p=p)
    return sorted(rows, key=lambda row: (not row.is_whole, float(np.mean(row.losses)) if row.losses else np.inf))
