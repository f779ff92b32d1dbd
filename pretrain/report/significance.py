"""Whether two settings differ by more than their seeds do."""

import math
from dataclasses import dataclass

import numpy as np

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Of two means: first minus second."""

    mean: float
    low: float | None
    """The 95 % confidence interval, from `low` to `high`; None where a side has a single seed."""
    high: float | None
    p: float | None = None
    """Two-sided: how often seeds alone would part two equal settings this far; None where a side has a single seed."""

    @property
    def is_real(self) -> bool | None:
        """Whether the interval leaves out zero; None where there is none."""
        return None if self.low is None or self.high is None else self.low > 0 or self.high < 0


def difference(first: list[float], second: list[float]) -> Difference:
    """Welch's interval (1947): the two spreads need not be the same. Each list holds one score per seed."""
    mean = float(np.mean(first) - np.mean(second))
    if min(len(first), len(second)) < 2:
        return Difference(mean, None, None)
    errors = [float(np.var(scores, ddof=1)) / len(scores) for scores in (first, second)]
    if sum(errors) == 0:
        return Difference(mean, mean, mean, 0.0 if mean else 1.0)
    degrees = sum(errors) ** 2 / sum(error**2 / (len(scores) - 1) for error, scores in zip(errors, (first, second), strict=True))
    half = t_quantile(0.5 + _CONFIDENCE / 2, degrees) * math.sqrt(sum(errors))
    return Difference(mean, mean - half, mean + half, t_probability(mean / math.sqrt(sum(errors)), degrees))


def paired_difference(first: list[float], second: list[float]) -> Difference:
    """Student's interval (1908) of the differences seed by seed: what a seed does to both settings alike takes no part in it.

    Each list holds one score per seed, the same seeds in the same order.
    """
    apart = np.subtract(first, second)
    mean = float(np.mean(apart))
    if len(apart) < 2:
        return Difference(mean, None, None)
    error = float(np.std(apart, ddof=1)) / math.sqrt(len(apart))
    if error == 0:
        return Difference(mean, mean, mean, 0.0 if mean else 1.0)
    degrees = len(apart) - 1
    half = t_quantile(0.5 + _CONFIDENCE / 2, degrees) * error
    return Difference(mean, mean - half, mean + half, t_probability(mean / error, degrees))


def holm(probabilities: list[float], tests: int) -> list[float]:
    """Adjusted for being several (Holm, 1979): each may be held against the level that a single one would be.

    `tests`: how many there are to be, at least as many as `probabilities`. Those still to come count as if theirs were the largest;
    whatever they turn out to be, the adjusted ones given here can only fall then.
    """
    ordered = sorted(range(len(probabilities)), key=probabilities.__getitem__)
    adjusted, largest = [0.0] * len(probabilities), 0.0
    for rank, place in enumerate(ordered):
        largest = max(largest, min(1.0, (tests - rank) * probabilities[place]))
        adjusted[place] = largest
    return adjusted


def t_quantile(probability: float, degrees: float) -> float:
    """Student's t with (not necessarily whole) degrees of freedom, above the median.

    With t = sqrt(degrees) tan(angle) the density is that of cos(angle)^(degrees - 1), which is smooth and bounded for degrees >= 1.
    """
    angles = np.linspace(0.0, math.pi / 2, 20001)
    density = np.cos(angles) ** (degrees - 1)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    angle = np.interp(2 * probability - 1, below / below[-1], angles)
    return float(math.sqrt(degrees) * math.tan(angle))


def t_probability(t: float, degrees: float) -> float:
    """That Student's t lies as far from 0 as `t` or further, on either side; `degrees` as in `t_quantile`."""

    def area(begin: float) -> float:
        angles = np.linspace(begin, math.pi / 2, 20001)
        return float(np.trapezoid(np.cos(angles) ** (degrees - 1), angles))

    return area(math.atan(abs(t) / math.sqrt(degrees))) / area(0.0)
