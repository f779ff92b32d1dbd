"""A comparison from where it stands to its end: rounds of runs, each started as a sweep's, until nothing is wanted any more."""

import dataclasses
import sys

from pretrain.compare import design as designs
from pretrain.compare.composing import Comparison
from pretrain.compare.outcomes import Outcomes, read_outcomes
from pretrain.compare.search import Trial, wanted_trials
from pretrain.exit_codes import DONE, FAULT, STOPPED_ON_REQUEST
from pretrain.sweep.plugins import Launcher
from pretrain.sweep.starting import check_all, start_all


def run_all(comparison: Comparison, launcher: Launcher | None) -> int:
    """Start what is wanted, again and again; DONE once nothing is, else the exit code of what held it up."""
    while trials := wanted(comparison):
        runs = [comparison.run(trial) for trial in trials]
        check_all(runs, launcher)
        print(_announced(trials, comparison.design.seeds[0]), flush=True)
        codes = start_all(runs, launcher)
        if STOPPED_ON_REQUEST in codes.values():
            return STOPPED_ON_REQUEST
        ended = outcomes_of(comparison).ended
        if left := [trial for trial in trials if trial not in ended]:
            code = codes.get(left[0].name)
            told = f"exit code {code}" if code else "its job's logs say why"
            print(f"error: the run {left[0].name} has not come to its end ({told}); the same command goes on", file=sys.stderr)
            return code or FAULT
    return DONE


def wanted(comparison: Comparison) -> list[Trial]:
    """The runs that are needed next and can be started by this command."""
    trials = wanted_trials(comparison.design.grids, comparison.design.seeds, outcomes_of(comparison).losses)
    return [trial for trial in trials if trial.variant in comparison.configs]


def outcomes_of(comparison: Comparison) -> Outcomes:
    return read_outcomes({comparison.folder: comparison.design})


def begin(comparison: Comparison) -> Comparison:
    """The comparison with what its folder already knows of it; the folder knows of all of it from here on."""

    folder = comparison.folder
    asked = comparison.design
    merged = designs.extended(designs.load(folder), asked, folder) if (folder / designs.FILE).exists() else asked
    designs.save(merged, folder)
    return dataclasses.replace(comparison, design=merged)


def _announced(trials: list[Trial], first_seed: int) -> str:
    by_variant: dict[str, list[str]] = {}
    for trial in trials:
        by_variant.setdefault(trial.variant, []).append(f"{trial.lr:g}" + (f" seed {trial.seed}" if trial.seed != first_seed else ""))
    listed = "; ".join(f"{variant} {', '.join(rates)}" for variant, rates in by_variant.items())
    return f"{len(trials)} {'run' if len(trials) == 1 else 'runs'} to come: {listed}"


def foretold(comparison: Comparison) -> str:
    """The grids, and what is to be run of them, for --dry-run; changes nothing."""
    if (comparison.folder / designs.FILE).exists():
        design = designs.extended(designs.load(comparison.folder), comparison.design, comparison.folder)
        comparison = dataclasses.replace(comparison, design=design)
    width = max(map(len, comparison.design.variants))
    grids = [f"{name:<{width}}  {', '.join(f'{rate:g}' for rate in grid.rates)}" for name, grid in comparison.design.grids.items()]
    seeds = ", ".join(map(str, comparison.design.seeds))
    trials = wanted(comparison)
    further = len(comparison.design.variants) * (len(comparison.design.seeds) - 1)
    last = f"then the best rate of each with the seeds {seeds}: at most {further} runs; and whatever widening a grid takes"
    return "\n".join([*grids, "", _announced(trials, comparison.design.seeds[0]) if trials else "nothing is left to run", last])
