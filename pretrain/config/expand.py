"""One command line that gives several values -> the command lines of the single runs, by Hydra's own grammar of sweeps.

optimizer=came,adamw run.seed=range(1,4) model=glob(bert_*)
"""

import itertools
import math

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from pretrain.config.complaints import choices_of, explain
from pretrain.config.compose import normalised
from pretrain.errors import UserError

_MOST_RUNS = 1000
"""What Slurm takes as one array of jobs, unless its administrator has set more."""


def expand(overrides: list[str], config_dir: str | None = None) -> list[list[str]]:
    """The overrides of every run: all combinations, the last override changing fastest. Raises UserError for what is not a sweep."""
    values: dict[str, list[str]] = {}
    for given in overrides:
        override = _parse(normalised(given), config_dir)
        key = override.key_or_group
        single = _single(override, config_dir)
        if key in values and (key == "experiment" or len(single) > 1 or len(values[key]) > 1):  # of single values the last one counts
            raise UserError(f"{key} is given twice; give all its values at once: {key}=first,second")
        values[key] = single
    runs = math.prod(map(len, values.values()))
    if runs > _MOST_RUNS:
        raise UserError(f"this is a sweep of {runs:,} runs, more than {_MOST_RUNS:,}; give fewer values, and the others in another command")
    return [list(run) for run in itertools.product(*values.values())]


def _parse(override: str, config_dir: str | None) -> Override:
    try:
        return OverridesParser.create().parse_overrides([override])[0]
    except HydraException as error:
        raise UserError(explain(error, [override], config_dir)) from error


def _single(override: Override, config_dir: str | None) -> list[str]:
    """The overrides with one value each that this one stands for."""
    if not override.is_sweep_override():
        return [override.input_line or ""]
    key, name = override.get_key_element(), override.key_or_group
    if override.is_interval_sweep():
        raise UserError(f"{override.input_line}: an interval has no values to go through; give some: {name}=first,second or range(...)")
    if isinstance(glob := override.value(), Glob):
        choices = choices_of(name, config_dir)
        found = glob.filter(choices)
        if not found:
            there = f"one of {', '.join(choices)}" if choices else "the values one by one"
            raise UserError(f"{override.input_line} matches nothing; give {there}")
        return [f"{key}={choice}" for choice in found]
    found = [f"{key}={value}" for value in override.sweep_string_iterator()]
    if not found:
        raise UserError(f"{override.input_line} holds no value; give at least one")
    for single in found:
        if found.count(single) > 1:
            raise UserError(f"{single.lstrip('+')} is given twice; give each value once")
    return found
