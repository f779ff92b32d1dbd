"""Which setting is better, and whether the difference is more than that between seeds."""

from dataclasses import dataclass

import numpy as np

from pretrain.report.comparison import Group
from pretrain.report.run import FINISHED
from pretrain.report.scores import LOSS
from pretrain.report.significance import Difference, difference


@dataclass(frozen=True)
class Verdict:
    """A group beside the one that it is compared with, by the final validation loss of its finished runs."""

    group: Group
    losses: list[float]
    """One per finished run; empty where none has finished."""
    baseline: str
    difference: Difference | None
    """To the baseline; None of the baseline itself and where no run has finished."""
    word: str
    """better, worse, no difference shown, one seed does not tell, reference (the baseline), not finished."""

    @property
    def mean(self) -> float | None:
        return float(np.mean(self.losses)) if self.losses else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds."""
        return float(np.std(self.losses, ddof=1)) if len(self.losses) > 1 else None

    @property
    def interval(self) -> str:
        """The difference as text, with its interval where there is one."""
        if self.difference is None:
            return ""
        text = f"{self.difference.mean:+.4f}"
        return text if self.difference.low is None else f"{text} (95 % interval {self.difference.low:+.4f} to {self.difference.high:+.4f})"

    @property
    def sentence(self) -> str:
        if self.difference is None:
            return f"{self.group.label}: {self.word}" + (f", validation loss {self.mean:.4f}" if self.mean is not None else "")
        return f"{self.group.label} against {self.baseline}: validation loss {self.interval}: {self.word}"


def verdicts(groups: list[Group]) -> list[Verdict]:
    """One for each group, in their order; those of one objective are compared with AdamW's best, or without AdamW with the best of all."""
    objectives = dict.fromkeys(map(_objective, groups))
    found = {objective: iter(_within([group for group in groups if _objective(group) == objective])) for objective in objectives}
    return [next(found[_objective(group)]) for group in groups]


def _objective(group: Group) -> str:
    return group.runs[0].objective


def _within(groups: list[Group]) -> list[Verdict]:
    losses = [_final_losses(group) for group in groups]
    finished = [place for place, found in enumerate(losses) if found]
    adamw = [place for place in finished if groups[place].runs[0].optimizer == "adamw"]
    baseline = min(adamw or finished, key=lambda place: np.mean(losses[place]), default=None)
    found = []
    for place, group in enumerate(groups):
        between = difference(losses[place], losses[baseline]) if losses[place] and baseline not in (None, place) else None
        name = groups[baseline].label if baseline is not None else ""
        found.append(Verdict(group, losses[place], name, between, _word(between, bool(losses[place]))))
    return found


def _word(between: Difference | None, has_finished: bool) -> str:
    if not has_finished:
        return "not finished"
    if between is None:
        return "reference"
    if between.is_real is None:
        return "one seed does not tell"
    if not between.is_real:
        return "no difference shown"
    return "better" if between.mean < 0 else "worse"


def _final_losses(group: Group) -> list[float]:
    return [loss for run in group.runs if run.state == FINISHED and (loss := run.evals.last(LOSS.name)) is not None]
