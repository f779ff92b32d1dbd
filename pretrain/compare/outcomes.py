"""What came of a comparison's runs, read from their folders."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain.compare.design import Design, split, unequal
from pretrain.compare.search import Trial
from pretrain.errors import UserError
from pretrain.report.comparison import PROVENANCE
from pretrain.report.reading import read_runs
from pretrain.report.run import DIVERGED, FINISHED, Run
from pretrain.report.scores import LOSS

_TOLD_ONCE = ("train.micro_batch_size", "zero.stage", "zero.offload", "launch.num_processes")


@dataclass(frozen=True)
class Outcome:
    """A run that has come to its end."""

    trial: Trial
    run: Run

    @property
    def loss(self) -> float | None:
        """Final validation loss, nats per target; None: diverged, given up by the run itself or not finite."""
        found = self.run.evals.last(LOSS.name)
        return None if self.run.state == DIVERGED or found is None or not math.isfinite(found) else found

    def final(self, metric: str) -> float | None:
        return None if self.loss is None else self.run.evals.last(metric)


@dataclass(frozen=True)
class Outcomes:
    """Those of one comparison, all of equal runs."""

    ended: dict[Trial, Outcome]
    going_on: tuple[Trial, ...]
    """Runs that have begun and not ended."""

    @property
    def losses(self) -> dict[Trial, float | None]:
        return {trial: outcome.loss for trial, outcome in self.ended.items()}


def read_outcomes(designs: Mapping[Path, Design]) -> Outcomes:
    """Of the runs in each folder that belong to its design. Raises UserError where one is not equal to the others."""
    ended: dict[Trial, Outcome] = {}
    going_on: list[Trial] = []
    fingerprints: dict[str, Path] = {}
    for folder, design in designs.items():
        for trial in design.trials_so_far(folder):
            path = folder / trial.name
            if not (path / "metrics.jsonl").exists():
                continue
            (run,) = read_runs([path])
            _refuse_unequal(trial, run, design, path)
            if (fingerprint := run.made_with.get("data_fingerprint")) and fingerprint not in fingerprints:
                fingerprints[fingerprint] = path
                if len(fingerprints) > 1:
                    one, other = fingerprints.values()
                    raise UserError(f"{one} and {other} were trained on different data; give the comparison of each a name of its own")
            if run.state in (FINISHED, DIVERGED):
                ended[trial] = Outcome(trial, run)
            else:
                going_on.append(trial)
    _refuse_unequal_tokens(ended.values())
    return Outcomes(ended, tuple(going_on))


def _refuse_unequal(trial: Trial, run: Run, design: Design, path: Path) -> None:
    """Where a run's own configuration is not the one that its name and the design promise."""
    shared, own = split(run.settings)
    wanted = {**design.shared, **design.variants[trial.variant].settings, "optimizer.lr": trial.lr, "run.seed": trial.seed}
    there = {key: ({**shared, **own} | run.settings).get(key) for key in wanted}
    if differences := unequal(there, wanted):
        raise UserError(f"{path} is not the run that its comparison needs ({'; '.join(differences)}); move it elsewhere")


def _refuse_unequal_tokens(outcomes: Iterable[Outcome]) -> None:
    finished = [outcome for outcome in outcomes if outcome.run.state == FINISHED and len(outcome.run.evals)]
    seen = {int(outcome.run.evals.axes["tokens"][-1]): outcome.trial.name for outcome in finished}
    if len(seen) > 1:
        told = " and ".join(f"{name} {tokens:,}" for tokens, name in list(seen.items())[:2])
        raise UserError(f"the runs saw different numbers of tokens ({told}); runs of one comparison see the same")


def told_of_the_machines(outcomes: Iterable[Outcome]) -> dict[str, list[Any]]:
    """What differs between the runs although it changes no number but for rounding and time: name -> its values."""
    values: dict[str, list[Any]] = {}
    for outcome in outcomes:
        known = {name: outcome.run.settings.get(name) for name in _TOLD_ONCE} | {
            name: value for name, value in outcome.run.made_with.items() if name.startswith(PROVENANCE) or name == "ranks"
        }
        for name, value in known.items():
            found = values.setdefault(name, [])
            if value not in found:
                found.append(value)
    return {name: found for name, found in values.items() if len(found) > 1}
