"""Counter-based random numbers: a draw is a pure function of (seed, position, stream, index).

No generator has a state that could be advanced, so a sample is the same whoever makes it, in whatever order. The mixing
function is the finaliser of splitmix64 (Steele, Lea and Flood, 2014), applied to whole arrays of uint64.
"""

from enum import IntEnum

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_STREAM = np.uint64(0xD1342543DE82EF95)


class Stream(IntEnum):
    """What random numbers are drawn for; draws of different streams are independent."""

    ORDER = 0
    PAIR = 1
    MASKED_POSITION = 2
    REPLACEMENT_KIND = 3
    REPLACEMENT_TOKEN = 4


def mix(values: np.ndarray) -> np.ndarray:
    """The splitmix64 finaliser: a bijection of uint64 in which every input bit changes every output bit with probability 1/2."""
    mixed = values >> np.uint64(30)
    mixed ^= values
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    shifted = mixed >> np.uint64(27)
    mixed ^= shifted
    mixed *= np.uint64(0x94D049BB133111EB)
    np.right_shift(mixed, np.uint64(31), out=shifted)
    mixed ^= shifted
    return mixed


def random_bits(seed: int, positions: np.ndarray, stream: Stream, count: int | None = None) -> np.ndarray:
    """64 random bits for every position, or `count` times 64.

    Args:
        seed: 0 to 2^64 - 1.
        positions: [n] integers, not negative.
        stream: what the numbers are for.
        count: draws per position; none: one draw and no second dimension.

    Returns:
        uint64 [n], or [n, count].
    """
    key = mix(np.array([seed], dtype=np.uint64) + _GOLDEN * np.array([stream + 1], dtype=np.uint64))
    start = mix(np.asarray(positions).astype(np.uint64) * _STREAM + key)
    if count is None:
        return mix(start + _GOLDEN)
    return mix(start[:, None] + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64))


def integers_below(bits: np.ndarray, bound: np.ndarray | int) -> np.ndarray:
    """Random integers in [0, bound) from random bits; int64 of the broadcast shape.

    `bound` is from 1 to 2^32; the upper 32 bits are used, so the bias is below bound / 2^32.
    """
    return (((bits >> np.uint64(32)) * np.asarray(bound).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


def uniform(bits: np.ndarray) -> np.ndarray:
    """Random float64 in [0, 1) from random bits."""
    return (bits >> np.uint64(11)) * 2.0**-53
