"""What a run is judged by, and when it reached a target."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

import numpy as np

from pretrain.report.run import FINISHED, Run


@dataclass(frozen=True)
class Score:
    """A number of the `eval` lines that says how good the model is."""

    name: str
    title: str
    lower_is_better: bool

    def reached(self, values: np.ndarray, target: float) -> np.ndarray:
        """Where `values` are at the target or better; never where they are not finite."""
        return values <= target if self.lower_is_better else values >= target


LOSS = Score("loss", "validation loss", lower_is_better=True)
ACCURACY = Score("mlm_accuracy", "MLM accuracy", lower_is_better=False)
PERPLEXITY = Score("perplexity", "perplexity", lower_is_better=True)
SCORES = (LOSS, ACCURACY, PERPLEXITY)


@dataclass(frozen=True)
class Reached:
    step: int
    hours: float


def first_reach(run: Run, score: Score, target: float) -> Reached | None:
    """The first evaluation at the target or better; nothing is interpolated between two."""
    values = run.evals.metrics.get(score.name)
    places = np.flatnonzero(score.reached(values, target)) if values is not None else ()
    if not len(places):
        return None
    axes, place = run.evals.axes, places[0]
    return Reached(int(axes["step"][place]), float(axes["wall_seconds"][place]) / 3600)


def targets(runs: list[Run], given: float | None = None) -> dict[str, float | None]:
    """The validation loss to reach, for each objective: the given one, else the default."""
    objectives = dict.fromkeys(run.objective for run in runs)
    return {
        objective: given if given is not None else default_target(run for run in runs if run.objective == objective)
        for objective in objectives
    }


def default_target(runs: Iterable[Run]) -> float | None:
    """The validation loss to reach: the lowest final one of AdamW, else the median of the final ones; rounded up to four decimals."""
    finals = [(run, loss) for run in runs if (loss := run.evals.last(LOSS.name)) is not None]
    finals = [(run, loss) for run, loss in finals if run.state == FINISHED] or finals
    adamw = [loss for run, loss in finals if run.optimizer == "adamw"]
    if not finals:
        return None
    chosen = min(adamw) if adamw else median(loss for _, loss in finals)
    return float(np.ceil(chosen * 1e4) / 1e4)
