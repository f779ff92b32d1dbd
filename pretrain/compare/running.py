"""A comparison from where it stands to its end: rounds of runs, each started as a sweep's, until nothing is wanted any more."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from pretrain.compare import design as designs
from pretrain.compare.composing import Comparison
from pretrain.compare.outcomes import Outcome, losses_of, read_outcomes
from pretrain.compare.search import Trial, wanted_trials
from pretrain.errors import UserError
from pretrain.exit_codes import DONE, FAULT, STOPPED_ON_REQUEST
from pretrain.report.state import is_held
from pretrain.sweep.plugins import Launcher
from pretrain.sweep.starting import check_all, start_all


@contextmanager
def begun(comparison: Comparison, launcher: Launcher | None) -> Iterator[Comparison]:
    """The comparison with what its folder already knows of it. For as long as it lasts no other command may have it.

    Nothing is written before everything that could refuse its runs has been tried, and no design while another command has the folder.
    """
    foreseen = known(comparison)
    check_all([foreseen.run(trial) for trial in wanted(foreseen, _outcomes(foreseen))], launcher)
    with _alone_in(comparison.folder):
        grown = known(comparison)
        designs.save(grown.design, grown.folder)
        yield grown


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Raises UserError where another command is at work on it, or where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout as held:
        raise UserError(
            f"another command is at work on {folder}; wait for it, or give compare.name=..., or, if none is, delete {folder / '.lock'}"
        ) from held
    except OSError as error:
        raise UserError(f"the comparison's folder {folder} cannot be written ({error.strerror}); give another run.dir") from error
    with lock:
        yield


def known(comparison: Comparison) -> Comparison:
    """With the variants, rates and seeds that the folder has, where it holds a comparison; changes nothing."""
    if not (comparison.folder / designs.FILE).exists():
        return comparison
    stored = designs.load(comparison.folder)
    return replace(comparison, design=designs.extended(stored, comparison.design, comparison.folder, comparison.given))


def run_all(comparison: Comparison, launcher: Launcher | None) -> int:
    """Start what is wanted, again and again; DONE once nothing is, else the exit code of what held it up."""
    outcomes = _outcomes(comparison)
    while trials := wanted(comparison, outcomes):
        _refuse_while_running(comparison, trials)
        runs = [comparison.run(trial) for trial in trials]
        check_all(runs, launcher)
        print(_announced(trials, comparison.design.seeds[0]), flush=True)
        codes = start_all(runs, launcher)
        if STOPPED_ON_REQUEST in codes.values():
            return STOPPED_ON_REQUEST
        outcomes = _outcomes(comparison)
        if left := [trial for trial in trials if trial not in outcomes]:
            code = codes.get(left[0].name)
            told = f"exit code {code}" if code else "what it said is in its logs/"
            print(f"error: the run {left[0].name} has not come to its end ({told}); the same command goes on", file=sys.stderr)
            return code or FAULT
    return DONE


def wanted(comparison: Comparison, outcomes: Mapping[Trial, Outcome]) -> list[Trial]:
    """The runs that are needed next and can be started by this command."""
    trials = wanted_trials(comparison.design.grids, comparison.design.seeds, losses_of(outcomes))
    return [trial for trial in trials if trial.variant in comparison.configs]


def _outcomes(comparison: Comparison) -> dict[Trial, Outcome]:
    return read_outcomes({comparison.folder: comparison.design})


def _refuse_while_running(comparison: Comparison, trials: list[Trial]) -> None:
    """Jobs go on when the command that submitted them is no longer waiting."""
    if going_on := [trial.name for trial in trials if is_held(comparison.folder / trial.name / ".lock")]:
        raise UserError(f"{len(going_on)} of its runs are still being trained ({going_on[0]}); give the same command when they have ended")


def foretold(comparison: Comparison) -> str:
    """The grids, and what is to be run of them, for --dry-run; changes nothing."""
    comparison = known(comparison)
    width = max(map(len, comparison.design.variants))
    grids = [f"{name:<{width}}  {', '.join(f'{rate:g}' for rate in grid.rates)}" for name, grid in comparison.design.grids.items()]
    seeds = comparison.design.seeds
    trials = wanted(comparison, _outcomes(comparison))
    if not trials:
        return "\n".join([*grids, "", "nothing is left to run"])
    further = len(comparison.configs) * (len(seeds) - 1)
    last = f"the best rate of each gets the seeds {', '.join(map(str, seeds))}: at most {further} runs more, and those of a widened grid"
    return "\n".join([*grids, "", _announced(trials, seeds[0]), last])


def _announced(trials: list[Trial], first_seed: int) -> str:
    by_variant: dict[str, list[str]] = {}
    for trial in trials:
        by_variant.setdefault(trial.variant, []).append(f"{trial.lr:g}" + (f" seed {trial.seed}" if trial.seed != first_seed else ""))
    listed = "; ".join(f"{variant} {', '.join(rates)}" for variant, rates in by_variant.items())
    return f"{len(trials)} {'run' if len(trials) == 1 else 'runs'} to come: {listed}"
