"""What the rules show of an update while they make it, and the statistics that are made of it where somebody asks."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from came import lockstep
from came.interval import Interval


class Observer:
    """Shown what a rule goes through, on every rank that takes part. This one looks at nothing, and costs nothing."""

    def direction(self, values: Tensor) -> None:
        """A part of the direction along which this rank's weights move: of all that the learning rate multiplies."""

    def direction_squares(self, squares: Tensor, numel: int) -> None:
        """Likewise, where its sum of squares is at hand: a scalar, of `numel` elements."""

    def clipping(self, interval: Interval, divisor: Tensor) -> None:
        """What RMS clipping divides the update of the whole parameter by, a scalar of 1 or more."""

    def confidence(self, interval: Interval, row: Tensor, col: Tensor) -> None:
        """CAME's `1 / sqrt(S[i, j])` as `row[i] * col[j]`: (matrices, rows) and (matrices, cols) of the whole parameter."""


class UpdateStatistics(Observer):
    """Adds up on the devices what it is shown of one step: nothing waits for them before `read`.

    What concerns a whole parameter counts on the rank that holds its first element, so that no sum depends on how it is cut.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor | float] = {}

    def direction(self, values: Tensor) -> None:
        self.direction_squares(values.square().sum(), values.numel())

    def direction_squares(self, squares: Tensor, numel: int) -> None:
        self._add("direction_squares", squares)
        self._add("direction_numel", numel)

    def clipping(self, interval: Interval, divisor: Tensor) -> None:
        if _holds_the_beginning(interval):
            self._add("clipped", (divisor > 1).double())
            self._add("clippable", 1)

    def confidence(self, interval: Interval, row: Tensor, col: Tensor) -> None:
        if _holds_the_beginning(interval):
            mean_s = row.double().pow(-2).mean(-1) * col.double().pow(-2).mean(-1)
            self._add("confidence", mean_s.rsqrt().sum())
            self._add("confidence_squares", mean_s.reciprocal().sum())
            self._add("matrices", len(mean_s))

    def read(self, partitioned: bool) -> dict[str, float]:
        """The statistics over all parameters and ranks; see `ShardedOptimizer.statistics`. Waits for the device; a collective call where
        the parameters are `partitioned` over the ranks."""
        totals = torch.tensor([float(self._sums.get(name, 0.0)) for name in _NAMES], dtype=torch.float64)
        if partitioned:
            totals = lockstep.all_reduce(totals, dist.ReduceOp.SUM, None)
        sums = dict(zip(_NAMES, totals.tolist(), strict=True))
        found = {"update_rms": (sums["direction_squares"] / max(sums["direction_numel"], 1.0)) ** 0.5}
        if sums["clippable"]:
            found["clip_share"] = sums["clipped"] / sums["clippable"]
        if sums["matrices"]:
            mean = sums["confidence"] / sums["matrices"]
            found["confidence_mean"] = mean
            found["confidence_std"] = max(sums["confidence_squares"] / sums["matrices"] - mean**2, 0.0) ** 0.5
        return found

    def _add(self, name: str, value: Any) -> None:
        self._sums[name] = value if name not in self._sums else self._sums[name] + value


_NAMES = ("direction_squares", "direction_numel", "clipped", "clippable", "confidence", "confidence_squares", "matrices")


def _holds_the_beginning(interval: Interval) -> bool:
    return interval.start == 0 < interval.stop
