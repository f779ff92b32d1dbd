"""The spike guard: which step's gradient norm is an outlier among those of the steps before it.

Gradient norms vary by factors, so it is their logarithms that are compared. A refused step's norm is not remembered: a lasting rise is
refused step after step, until `train.max_skipped_steps` in a row stop the run.
"""

import math

WINDOW = 128
"""Applied steps whose norms are remembered."""
FEWEST = 32
"""Norms that are needed before anything is refused."""
LEAST_DEVIATION = 0.05
"""Of the logarithm: norms that hardly vary are taken to vary by 5 %, else the smallest step up would be an outlier."""


class SpikeGuard:
    """Refuses a norm whose logarithm lies more than `sigma` standard deviations above the mean of the last ones."""

    def __init__(self, sigma: float, recent: list[float]) -> None:
        """`recent`: the last applied steps' norms, oldest first. The list is the caller's, to be put into checkpoints; it is kept up
        to date in place, and all that the guard knows is in it."""
        self.sigma, self.recent = sigma, recent

    def refuses(self, norm: float) -> bool:
        """Whether a step with this gradient norm is an outlier."""
        return self.distance(norm) > self.sigma

    def accept(self, norm: float) -> None:
        """Remember an applied step's norm."""
        if norm > 0:  # a gradient of nothing says nothing about the others, and has no logarithm
            self.recent.append(norm)
            del self.recent[:-WINDOW]

    def distance(self, norm: float) -> float:
        """Standard deviations above (negative: below) the mean of the last norms; 0 while those are too few to tell."""
        if len(self.recent) < FEWEST or not norm > 0:
            return 0.0
        logs = [math.log(recent) for recent in self.recent]
        mean = math.fsum(logs) / len(logs)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in logs) / (len(logs) - 1))
        return (math.log(norm) - mean) / max(deviation, LEAST_DEVIATION)
