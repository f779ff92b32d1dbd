"""What `python -m pretrain.compare` is asked for, beside the settings of the runs."""

import math
from dataclasses import dataclass, field
from typing import Any

from pretrain.config.schema.checks import require, require_positive


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
        plain = self.name is None or (bool(self.name) and "/" not in self.name and self.name not in (".", ".."))
        require(plain, "compare.name", repr(self.name), "a plain folder name")
        require_positive("compare", self, "rates", "most_rates")
        require(bool(self.optimizers), "compare.optimizers", "[]", "at least one, such as [came,adamw]")
        twice = next((name for name in self.optimizers if self.optimizers.count(name) > 1), None)
        require(twice is None, "compare.optimizers", f"[...,{twice},...,{twice}]", "each once")
        for name, rates in self.lrs.items():
            require(_are_rates(rates), f"compare.lrs.{name}", rates, "different numbers above 0: [1e-4,2e-4]")
        seeds = self.seeds
        if isinstance(seeds, list):
            whole = all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in seeds)
            fits = bool(seeds) and whole and len(set(seeds)) == len(seeds)
        else:
            fits = isinstance(seeds, int) and not isinstance(seeds, bool) and seeds > 0
        require(fits, "compare.seeds", seeds, "how many (1 or more), or a list of different seeds: [1,2,3]")


def _are_rates(values: object) -> bool:
    if not isinstance(values, list) or not values:
        return False
    plain = all(isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf for value in values)
    return plain and len(set(values)) == len(values)
