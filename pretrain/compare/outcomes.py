"""What came of a comparison's runs, read from their folders."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain.compare.design import Design, unequal
from pretrain.compare.search import Trial
from pretrain.errors import UserError
from pretrain.report.comparison import PROVENANCE
from pretrain.report.reading import read_run
from pretrain.report.run import DIVERGED, FINISHED, Run
from pretrain.report.scores import LOSS

_OF_TIME_AND_MEMORY = (
    *("train.micro_batch_size", "train.compile", "train.activation_checkpointing", "optimizer.implementation"),
    *("zero.stage", "zero.offload", "zero.extra"),
)
_SAME_FOR_ALL = ("data_fingerprint", "init_from")


@dataclass(frozen=True)
class Outcome:
    """A run that has come to its end."""

    trial: Trial
    run: Run

    @property
    def loss(self) -> float | None:
        """Validation loss at the end of the schedule, nats per target; None: diverged, given up by the run itself or not finite."""
        return self.final(LOSS.name)

    def final(self, metric: str) -> float | None:
        """The score of the evaluation after the last step; None where there is none, or it is not finite."""
        steps, values = self.run.evals.axes["step"], self.run.evals.metrics.get(metric)
        if self.run.state == DIVERGED or values is None or not len(steps) or steps[-1] != self.run.num_steps:
            return None
        return float(values[-1]) if math.isfinite(values[-1]) else None


def read_outcomes(designs: Mapping[Path, Design]) -> dict[Trial, Outcome]:
    """Of those runs in each folder that belong to its design and have ended. Raises UserError where one is not equal to the others."""
    ended: dict[Trial, Outcome] = {}
    seen: dict[str, dict[Any, Path]] = {name: {} for name in _SAME_FOR_ALL}
    for folder, design in designs.items():
        for trial in design.trials_so_far(folder):
            path = folder / trial.name
            run = read_run(path)
            if run is None:
                continue  # killed before its first line was whole: it begins anew
            _refuse_another_run(trial, run, design, path)
            for name, places in seen.items():
                places.setdefault(run.made_with.get(name), path)
                if len(places) > 1:
                    one, other = places.values()
                    what = "trained on different data" if name == "data_fingerprint" else "begun with different weights"
                    raise UserError(f"{one} and {other} were {what}; give the comparison of each a name of its own")
            if run.state in (FINISHED, DIVERGED):
                _refuse_other_tokens(run, design, path)
                ended[trial] = Outcome(trial, run)
    return ended


def losses_of(outcomes: Mapping[Trial, Outcome]) -> dict[Trial, float | None]:
    return {trial: outcome.loss for trial, outcome in outcomes.items()}


def _refuse_another_run(trial: Trial, run: Run, design: Design, path: Path) -> None:
    """Where a run's own configuration is not the one that its name and the design promise."""
    if not run.settings:
        raise UserError(f"{path / 'config.yaml'} cannot be read; put the file back, or move the folder elsewhere")
    wanted = {**design.shared, **design.variants[trial.variant].settings, "optimizer.lr": trial.lr, "run.seed": trial.seed}
    if differences := unequal({key: run.settings.get(key) for key in wanted}, wanted):
        raise UserError(f"{path} is not the run that its comparison needs ({'; '.join(differences)}); move it elsewhere")


def _refuse_other_tokens(run: Run, design: Design, path: Path) -> None:
    """A finished run has seen the tokens of all its steps, and those of the batches that it skipped."""
    if run.state != FINISHED or not len(run.evals):
        return
    per_step = design.shared["train.global_batch_size"] * design.shared["data.max_seq_length"]
    wanted = (design.shared["train.num_steps"] + run.skipped_steps) * per_step
    if (seen := int(run.evals.axes["tokens"][-1])) != wanted:
        raise UserError(f"{path} has seen {seen:,} tokens, where its comparison needs {wanted:,}; move it elsewhere, and it is run anew")


def told_of_the_machines(outcomes: Iterable[Outcome]) -> dict[str, dict[str, list[str]]]:
    """What differs between the runs without being a setting of the mathematics: name -> value -> the variants that have such runs."""
    found: dict[str, dict[str, list[str]]] = {}
    for outcome in outcomes:
        lives = outcome.run.lives or (outcome.run.made_with,)
        known = [(name, outcome.run.settings[name]) for name in _OF_TIME_AND_MEMORY if name in outcome.run.settings]
        known += [(name, value) for life in lives for name, value in life.items() if name.startswith(PROVENANCE) or name == "ranks"]
        for name, value in known:
            variants = found.setdefault(name, {}).setdefault(str(value), [])
            if outcome.trial.variant not in variants:
                variants.append(outcome.trial.variant)
    return {name: values for name, values in found.items() if len(values) > 1}
