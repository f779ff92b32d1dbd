"""Several sources by weight: which source the sample at each position comes from, as a pure function of the position.

The sources take turns as evenly as their weights allow, in a pattern that repeats: of 3 to 1 every fourth sample is the second source's. So every
batch has the mixture's proportions, and how many samples came from each source by any position is known without counting.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from pretrain.config.schema import DataConfig, MixtureDataConfig, PreparedDataConfig
from pretrain.data.prepared import Prepared
from pretrain.errors import UserError

PATTERN_LENGTH = 4096
"""Positions after which the pattern repeats; shares are multiples of one in so many."""


class Mixture:
    """The turns of the sources.

    Args:
        weights: one per source, above 0; only their proportions count. Raises UserError for one that is too small beside the others.

    Attributes:
        shares: float64 [sources], the exact share of each.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.names = list(weights)
        turns = _turns(self.names, np.array(list(weights.values()), dtype=np.float64))
        self.shares = turns / PATTERN_LENGTH
        when = np.concatenate([(np.arange(number) + 0.5) / number for number in turns])
        whose = np.repeat(np.arange(len(turns)), turns)
        self._turns = turns
        self._source = whose[np.argsort(when, kind="stable")]  # [PATTERN_LENGTH]
        taken = np.cumsum(self._source[:, None] == np.arange(len(turns)), axis=0)
        self._before = np.concatenate([np.zeros((1, len(turns)), dtype=np.int64), taken])  # [PATTERN_LENGTH + 1, sources]

    @property
    def signature(self) -> str:
        """Tells mixtures of the same sources, named in the same order, apart; empty for a single source."""
        return "" if len(self.names) == 1 else ":" + ",".join(map(str, self._turns))

    def deal(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each position (int64 [n]): the source's number, and how many samples were drawn from it before; both int64 [n]."""
        round_number, turn = np.divmod(positions, PATTERN_LENGTH)
        source = self._source[turn]
        return source, round_number * self._turns[source] + self._before[turn, source]

    def drawn(self, position: int) -> list[int]:
        """Samples drawn from each source before `position`."""
        round_number, turn = divmod(position, PATTERN_LENGTH)
        return (round_number * self._turns + self._before[turn]).tolist()

    def positions_within(self, lengths: Sequence[int]) -> int:
        """The first so many positions draw no more than `lengths[s]` samples from any source s."""
        whole_rounds = int((np.array(lengths) // self._turns).min())
        left = np.array(lengths) - whole_rounds * self._turns
        fits = (self._before <= left).all(axis=1)
        return whole_rounds * PATTERN_LENGTH + int(np.flatnonzero(fits)[-1])


def mixture_of(prepared: Prepared, data: DataConfig | None = None) -> Mixture:
    """The mixture of a prepared corpus's sources: by the weights that `data` gives, else by those that it was prepared with. Raises UserError
    where the weights do not name the sources."""
    given: Mapping[str, float] = {}
    if isinstance(data, MixtureDataConfig):
        given = {name: source.weight for name, source in data.mixture.items()}
    elif isinstance(data, PreparedDataConfig):
        given = data.weights
    names = [source.name for source in prepared.sources]
    if given and sorted(given) != sorted(names):
        raise UserError(
            f"data.weights names {', '.join(sorted(given))}, but the prepared corpus holds {', '.join(names)}; name these, or none"
        )
    return Mixture({source.name: given.get(source.name, source.weight) for source in prepared.sources})


def _turns(names: Sequence[str], weights: np.ndarray) -> np.ndarray:
    """How often each source's turn comes in the pattern (int64 [sources]): its share, rounded so that the sum is right."""
    exact = weights / weights.sum() * PATTERN_LENGTH
    turns = np.floor(exact).astype(np.int64)
    for index in np.argsort(turns - exact, kind="stable")[: PATTERN_LENGTH - turns.sum()]:
        turns[index] += 1
    for name, number, weight in zip(names, turns, weights, strict=True):
        if number == 0:
            raise UserError(
                f"the weight {weight:g} of {name} is less than one sample in {PATTERN_LENGTH} of the mixture; give it more, or leave {name} out"
            )
    return turns
