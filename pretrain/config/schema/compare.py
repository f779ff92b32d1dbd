"""What `python -m pretrain.compare` is asked for, beside the settings of the runs."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from pretrain.config.schema.checks import require, require_positive

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass
class CompareConfig:
    """Which optimizers, at which learning rates, over which seeds."""

    name: str | None = None
    """Folder of the comparison below run.dir, with a run's folder for each run; none: compare-<run.name>."""
    optimizers: list[str] = field(default_factory=lambda: ["came", "adamw", "lamb", "adafactor", "sm3"])
    """Names of variants, see `pretrain/compare/variants.py`, and of those in `variants`."""
    seeds: Any = 3
    """How many, from run.seed on, or a list. The first is what learning rates are chosen with; the best rate is trained with all."""
    rates: int = 5
    """Learning rates in the first grid of each, a factor of 2 apart."""
    most_rates: int = 9
    """The grid is widened while the best rate lies at its edge, to so many rates at most."""
    lrs: dict[str, Any] = field(default_factory=dict)
    """The first grid of an optimizer, by its name, instead of one around its paper's advice."""
    variants: dict[str, list[str]] = field(default_factory=dict)
    """Variants of your own: name -> settings, such as compare.variants.slow=[optimizer=came,optimizer.beta3=0.9999]."""

    def __post_init__(self) -> None:
        require(self.name is None or _is_plain(self.name), "compare.name", repr(self.name), "a plain folder name")
        require_positive("compare", self, "rates", "most_rates")
        require(bool(self.optimizers), "compare.optimizers", "[]", "at least one, such as [came,adamw]")
        twice = next((name for name in self.optimizers if self.optimizers.count(name) > 1), None)
        require(twice is None, "compare.optimizers", f"[...,{twice},...,{twice}]", "each once")
        for name in self.variants:
            require(_is_plain(name), "compare.variants", repr(name), "names of letters, digits, _, - and .")
        for name, rates in self.lrs.items():
            require(_are_rates(rates), f"compare.lrs.{name}", rates, "different numbers above 0: [1e-4,2e-4]")
        require(_are_seeds(self.seeds), "compare.seeds", self.seeds, "how many (1 or more), or a list of different seeds: [1,2,3]")


def _is_plain(name: str) -> bool:
    return bool(_PLAIN_NAME.fullmatch(name))


def _are_rates(values: object) -> bool:
    if not isinstance(values, list) or not values:
        return False
    plain = all(isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf for value in values)
    return plain and len(set(values)) == len(values)


def _are_seeds(given: object) -> bool:
    seeds = given if isinstance(given, list) else [given]
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63 for seed in seeds)
    return bool(seeds) and whole and len(set(seeds)) == len(seeds) and (isinstance(given, list) or 0 < given <= 1000)
