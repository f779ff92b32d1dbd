"""How the kernels read and write momentum: `came.momentum` and `came.rounding` again, to the bit.

Tiles that are written hold whole blocks of 8-bit momentum, or pieces that a rank's interval cuts: `Geometry.block_cols` is a multiple of
`came.momentum.BLOCK`, and so are the columns of a matrix, or the tiles are of lines (`fields.LINES`).
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from came import momentum as kept
from came.rounding import _GOLDEN, _mix64

BLOCK = tl.constexpr(kept.BLOCK)
TOP = tl.constexpr(kept.TOP)
TINY = tl.constexpr(kept.TINY)
INVERSE = tl.constexpr(1 / kept.LARGEST**2)


def keys(seeds: Sequence[int], steps: Sequence[int], numbers: Sequence[int]) -> Tensor:
    """`Draws(seed, step, number).keys()` of each parameter, (parameters, 2) int32; the indices of a parameter stay below 2^32."""
    begun = {pair: _signed(_chained(_chained(0, pair[0]), pair[1])) for pair in set(zip(seeds, steps, strict=True))}
    words = torch.tensor([begun[pair] for pair in zip(seeds, steps, strict=True)], dtype=torch.int64)
    for value in (torch.tensor(numbers, dtype=torch.int64), 0):  # the parameter, and the upper half of an index
        words = _mixed64((words ^ value) + _signed(_GOLDEN))
    return words.view(torch.int32).view(-1, 2)


def _chained(key: int, value: int) -> int:
    return _mix64((key ^ value) + _GOLDEN)


def _mixed64(words: Tensor) -> Tensor:
    """`came.rounding`'s SplitMix64 of int64 taken for unsigned."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        words = (words ^ ((words >> shift) & ((1 << (64 - shift)) - 1))) * _signed(factor)
    return words


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


@triton.jit
def load(codes, scales, element, block, mask, MOMENTUM: tl.constexpr):
    """Momentum in float32, 0 where it is masked. `block` is each element's place among `scales`."""
    if MOMENTUM == tl.int8:
        code = tl.load(codes + element, mask=mask, other=0).to(tl.float32)
        return code * tl.abs(code) * INVERSE * tl.load(scales + block, mask=mask, other=0.0)
    else:
        return tl.load(codes + element, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def store(codes, scales, element, block, index, key, values, mask, MOMENTUM: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Write float32 `values` (rows, cols). `index` are the lower 32 bits of their places in the parameter, `key` where its keys are."""
    if MOMENTUM == tl.bfloat16:
        bits = _bits(index, key)
        words = values.to(tl.uint32, bitcast=True) + (bits >> 16)
        cut = (words >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
        tl.store(codes + element, tl.where(values == values, cut, values.to(tl.bfloat16)), mask=mask)
    elif MOMENTUM == tl.int8:
        magnitude = tl.where(mask, tl.abs(values), 0.0)
        of_blocks = tl.reshape(magnitude, [ROWS, COLS // BLOCK, BLOCK])
        largest = tl.max(of_blocks, 2, keep_dims=True)
        not_a_number = tl.max((of_blocks != of_blocks).to(tl.int32), 2, keep_dims=True)
        largest = tl.where(not_a_number > 0, float("nan"), tl.where(largest < TINY, 0.0, largest))
        scale = tl.reshape(tl.broadcast_to(largest, [ROWS, COLS // BLOCK, BLOCK]), [ROWS, COLS])
        tl.store(scales + block, scale, mask=mask)  # each element of a block writes the same
        one_over = tl.where(scale > 0, tl.div_rn(tl.full([ROWS, COLS], TOP, tl.float32), tl.where(scale > 0, scale, 1.0)), 0.0)
        fixed = (magnitude * one_over).to(tl.int32)
        fixed = tl.where((magnitude == scale) & (scale > 0), TOP, fixed)
        low = tl.sqrt((fixed >> 16).to(tl.float32) + 0.5).to(tl.int32)
        rest, gap = fixed - (low * low << 16), 2 * low + 1
        up = (_bits(index, key) >> 10).to(tl.int32) * gap < rest << 6
        code = low + up.to(tl.int32)
        tl.store(codes + element, tl.where(values < 0, -code, code).to(tl.int8), mask=mask)
    else:
        tl.store(codes + element, values, mask=mask)


@triton.jit
def _bits(index, key):
    """32 random bits for each index."""
    first, second = tl.load(key).to(tl.uint32, bitcast=True), tl.load(key + 1).to(tl.uint32, bitcast=True)
    return _mixed(_mixed(index ^ first) ^ second)


@triton.jit
def _mixed(word):
    """lowbias32 of unsigned words."""
    word = (word ^ (word >> 16)) * 0x7FEB352D
    word = (word ^ (word >> 15)) * 0x846CA68B
    return word ^ (word >> 16)
