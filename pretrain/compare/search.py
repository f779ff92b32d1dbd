"""Which runs a comparison still needs, from the outcomes that it has: the learning-rate search, as a function without memory.

Each variant is trained once at every rate of its grid, to the end of the schedule. While the best of them lies at an edge of the grid, the
grid grows by a rate there, a factor of 2 beyond. The best rate is then trained with all the seeds. Whatever was done before, and however
often it was interrupted, the outcomes alone say what comes next.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

FACTOR = 2.0
"""Between neighbouring learning rates."""


@dataclass(frozen=True, order=True)
class Trial:
    """One run of a comparison."""

    variant: str
    lr: float
    seed: int

    @property
    def name(self) -> str:
        """Of its run, in the comparison's folder."""
        return f"{self.variant}-lr_{self.lr!r}-seed_{self.seed}"


def trial_named(name: str) -> Trial | None:
    """The one that has a run of this name; None where it is not one's."""
    rest, _, seed = name.rpartition("-seed_")
    variant, _, rate = rest.rpartition("-lr_")
    try:
        trial = Trial(variant, float(rate), int(seed))
    except ValueError:
        return None
    return trial if trial.variant and trial.name == name else None


@dataclass(frozen=True)
class Grid:
    """How one variant's learning rate is looked for."""

    rates: tuple[float, ...]
    """The first, ascending."""
    most: int
    """How many there may be where it grows."""


@dataclass(frozen=True)
class Found:
    """Where one variant's search stands."""

    scores: dict[float, float | None] = field(default_factory=dict)
    """Rate -> final validation loss with the first seed, None: diverged; ascending in the rate."""
    wanted: tuple[float, ...] = ()
    """Rates whose runs are still to come."""
    best: float | None = None
    """The rate of the lowest loss, of equal ones the lower; None while none has one."""
    at_edge: bool = False
    """The best lies at an edge of a grid that may not grow any more: a better one may lie beyond."""

    @property
    def is_settled(self) -> bool:
        return not self.wanted and self.best is not None

    @property
    def gap(self) -> float:
        """The factor between the best rate, of a settled search, and the farther one of its neighbours."""
        rates = list(self.scores)
        place = rates.index(self.best)
        return max(max(rate / self.best, self.best / rate) for rate in rates[max(0, place - 1) : place + 2])


def centred(middle: float, number: int) -> tuple[float, ...]:
    """`number` rates a factor of 2 apart around `middle`; of an even number one more lies above it."""
    return tuple(middle * FACTOR ** (place - (number - 1) // 2) for place in range(number))


def search(grid: Grid, scores: Mapping[float, float | None]) -> Found:
    """`scores`: rate -> final validation loss of the first seed, None where it diverged; a rate whose run is still to come is not there.

    Every rate that has a score counts, whether this grid or an earlier one asked for it.
    """
    rates = sorted({*grid.rates, *scores})
    while True:
        known = {rate: scores[rate] for rate in rates if rate in scores}
        best = min((rate for rate, score in known.items() if score is not None), key=lambda rate: (known[rate], rate), default=None)
        if wanted := tuple(rate for rate in rates if rate not in known):
            return Found(known, wanted, best)
        beyond = _beyond(rates, best)
        if beyond is None or len(rates) >= grid.most:
            return Found(known, (), best, at_edge=beyond is not None)
        rates = sorted([*rates, beyond])


def _beyond(rates: list[float], best: float | None) -> float | None:
    """The rate by which the grid has to grow; where all have diverged it is a lower one."""
    if best is None or best == rates[0]:
        return rates[0] / FACTOR
    return rates[-1] * FACTOR if best == rates[-1] else None


def wanted_trials(grids: Mapping[str, Grid], seeds: tuple[int, ...], outcomes: Mapping[Trial, float | None]) -> list[Trial]:
    """The runs that are needed next, of every variant; none: the comparison is complete. `outcomes` as the scores of `search`."""
    trials: list[Trial] = []
    for variant, grid in grids.items():
        found = search(grid, scores_of(variant, seeds[0], outcomes))
        if found.is_settled:
            trials += [Trial(variant, found.best, seed) for seed in seeds[1:]]
        else:
            trials += [Trial(variant, rate, seeds[0]) for rate in found.wanted]
    return [trial for trial in trials if trial not in outcomes]


def scores_of(variant: str, seed: int, outcomes: Mapping[Trial, float | None]) -> dict[float, float | None]:
    return {trial.lr: score for trial, score in outcomes.items() if (trial.variant, trial.seed) == (variant, seed)}
