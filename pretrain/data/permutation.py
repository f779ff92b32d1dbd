"""A keyed pseudo-random permutation of range(n), evaluated where it is needed and never written down.

An unbalanced Feistel network permutes the smallest power of two that holds n; a value that falls outside is sent through
again until it lies inside ("cycle walking", Black and Rogaway, 2002), which takes two rounds on average at most.
"""

import numpy as np

from pretrain.data.random_numbers import Stream, mix, random_bits

_ROUNDS = 4
_FEWEST_BITS = 4


def permute(indices: np.ndarray, size: int, seed: int, epochs: np.ndarray) -> np.ndarray:
    """Where the permutation of (seed, epoch) sends each index.

    Args:
        indices: int64 [n], each in [0, size).
        size: the number of things permuted, at least 1.
        seed: 0 to 2^64 - 1.
        epochs: int64 [n], which permutation each index goes through.

    Returns:
        int64 [n], each in [0, size); a bijection of range(size) for every (seed, epoch).
    """
    num_bits = max(_FEWEST_BITS, (size - 1).bit_length())
    keys = random_bits(seed, epochs, Stream.ORDER, 2 * _ROUNDS)
    values = _feistel(np.asarray(indices).astype(np.uint64), keys, num_bits)
    outside = np.flatnonzero(values >= size)
    while outside.size:
        values[outside] = _feistel(values[outside], keys[outside], num_bits)
        outside = outside[values[outside] >= size]
    return values.astype(np.int64)


def _feistel(values: np.ndarray, keys: np.ndarray, num_bits: int) -> np.ndarray:
    low_bits = np.uint64(num_bits // 2)
    low_mask = (np.uint64(1) << low_bits) - np.uint64(1)
    high_mask = (np.uint64(1) << np.uint64(num_bits - num_bits // 2)) - np.uint64(1)
    high, low = values >> low_bits, values & low_mask
    for round_index in range(_ROUNDS):
        high = high ^ (mix(low + keys[:, 2 * round_index]) & high_mask)
        low = low ^ (mix(high + keys[:, 2 * round_index + 1]) & low_mask)
    return (high << low_bits) | low
