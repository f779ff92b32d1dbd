"""Stochastic rounding whose random numbers depend on what is rounded and not on who rounds it.

A draw is 32 bits made of (seed, step, parameter, flat index) alone: there is no generator and no state, so that any layout, device and
order of work draws the same. All of it is integer arithmetic modulo 2^32, which a GPU kernel repeats to the bit.

The bits: 64 key bits for (seed, step, parameter, high word of the index), mixed by SplitMix64's finaliser (Steele et al., 2014) once for
each of them; then, for each element, `mix(mix(low word ^ key 0) ^ key 1)` with the finaliser lowbias32 (C. Wellons, "hash-prospector",
2018: two multiplications, each input bit flips each output bit with probability 1/2 to within 0.2 %). For one key this permutes the
32-bit numbers: neighbours are as unlike as a good hash makes them, and every value is met once in 2^32 elements. Two parameters whose
key 0 differs in a few low bits would use one sequence in another order, were it not for key 1. Rounding needs no more: bits that are
uniform and uncorrelated over elements, steps and parameters (tested). They are not for cryptography.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_WORD = 2**32
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Draws:
    """The random numbers of one parameter's rounding at one step."""

    seed: int
    step: int
    """The number of the update, from 1."""
    parameter: int
    """Its number in the optimizer's order, whatever a rank holds of it."""

    def keys(self, high: int = 0) -> tuple[int, int]:
        """Keys 0 and 1, unsigned 32-bit, for flat indices from `high` 2^32 up to the next multiple of 2^32."""
        key = 0
        for value in (self.seed, self.step, self.parameter, high):
            key = _mix64((key ^ value) + _GOLDEN)
        return key % _WORD, key // _WORD

    def bits(self, start: int, stop: int, device: torch.device | str = "cpu") -> Tensor:
        """32 random bits for each of the flat indices [start, stop), as int32 (stop - start,)."""
        cuts = [start, *range((start // _WORD + 1) * _WORD, stop, _WORD), stop]
        parts = [_hashed(first, last, self.keys(first // _WORD), device) for first, last in zip(cuts, cuts[1:], strict=False)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def to_bfloat16(values: Tensor, bits: Tensor) -> Tensor:
    """float32 `values` rounded to one of the two bfloat16 beside them, up with the probability that makes the mean right.

    16 of the random `bits` (int32, the upper ones) are added to the 16 that bfloat16 lacks, and those are cut off; so bfloat16 values,
    zeros and infinities stay what they are. A NaN stays one. Above the largest bfloat16, 3.39e38, the upper neighbour is infinity.
    """
    words = values.view(torch.int32) + ((bits >> 16) & 0xFFFF)
    rounded = (words >> 16).to(torch.int16).view(torch.bfloat16)
    return torch.where(values.isnan(), values.to(torch.bfloat16), rounded)


def _hashed(start: int, stop: int, keys: tuple[int, int], device: torch.device | str) -> Tensor:
    """The bits of indices that share their high word."""
    words = torch.arange(stop - start, dtype=torch.int32, device=device).add_(_signed(start % _WORD))
    for key in keys:
        _mix32_(words.bitwise_xor_(_signed(key)))
    return words


def _mix32_(words: Tensor) -> Tensor:
    """lowbias32, in place, of int32 taken for unsigned: multiplication wraps, and shifting right is followed by a mask."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        words.bitwise_xor_((words >> shift).bitwise_and_((1 << (32 - shift)) - 1))
        if factor != 1:
            words.mul_(_signed(factor))
    return words


def _mix64(word: int) -> int:
    """SplitMix64's finaliser."""
    word %= 2**64
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
    return word ^ (word >> 31)


def _signed(word: int) -> int:
    """An unsigned 32-bit number as the int32 of the same bits."""
    return word - _WORD if word >= _WORD // 2 else word
