"""How momentum is kept between steps: in float32, in bfloat16, or in 8 bits with a scale for each block of 256 elements.

A rule works on float32; the optimizer decodes before it and encodes after it, with stochastic rounding: rounding to nearest would lose
each change below half a code, so that momentum that decays by a tenth each step would stay where it is.

8 bits: `value = scale * sign(c) (c / 127)^2` for a code c in [-127, 127]. Squaring spends the codes where most values are, near zero
(the gap there is 1/16129 of the scale, at the top 1/64); a block's largest magnitude is its scale and exact, zero is exact. Blocks lie
on the parameter's own flat index: block k is the elements [256 k, 256 (k + 1)). Of a block that is cut by the end of a rank's interval
each rank has a piece, with the piece's own scale; uncut blocks are one piece, the same at any layout.

Why squares: of CAME's momenta in two BERTs of 100 steps (largest magnitudes 4.7 and 5.8 RMS in the median block) one rounding is off by 1.1
and 1.2 % of their norm; with even codes it is 1.6 and 2.0 %, with cubes 1.3, with powers 1.5 the same to 0.05, and with codes even within
each of seven decades 1.9. bfloat16's is 0.2 %.

Exactly, for a kernel to repeat to the bit: `TOP` is 127^2 in fixed point with 16 fractional bits; division and products are float32,
rounded to nearest; everything after them is integers below 2^31.

    scale    = max |x| of the piece, 0 where that is below TINY
    y        = int(|x| * (TOP / scale)), towards zero; TOP where |x| = scale; 0 where scale is 0
    low      = floor(sqrt(y >> 16)), as float: floor(sqrt((y >> 16) + 0.5)), which no rounding of the root can spoil
    up       = (bits >> 10 as unsigned) * (2 low + 1) < (y - (low^2 << 16)) << 6
    code     = sign(x) (low + up)
    value    = (c |c| * (1 / 16129)) * scale; 1 / 16129 in float32 times 16129 is exactly 1

A piece with a NaN or an infinity has that for its scale and decodes to NaN or infinities.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from came.interval import CACHE_ELEMENTS, Interval
from came.rounding import Draws, to_bfloat16

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}

MOMENTUM = "exp_avg"
SCALE = "exp_avg_scale"

BLOCK = 256
"""Elements that share a scale."""

LARGEST = 127
TOP = LARGEST**2 << 16
"""The largest magnitude in fixed point, 2^29.98."""

TINY = 2.0**-96
"""Pieces whose largest magnitude is smaller are kept as zeros: TOP / scale would overflow. Momentum of 1e-29 moves nothing."""

_INVERSE = 1 / LARGEST**2

_PIECE_ELEMENTS = 2**24
"""Elements that are encoded at once where there is no cache to fit: what the temporaries cost is bounded."""


def pieces(interval: Interval) -> int:
    """Scales that are kept for an interval: the blocks that it has elements of."""
    return (interval.stop - 1) // BLOCK - interval.start // BLOCK + 1 if interval.numel else 0


def bounds(interval: Interval) -> Tensor:
    """Where the pieces of an interval that is not empty begin, in the parameter's flat index, and where the last ends: (pieces + 1,)."""
    edges = torch.arange(interval.start // BLOCK, interval.start // BLOCK + pieces(interval) + 1) * BLOCK
    return edges.clamp_(interval.start, interval.stop)


def same_code(dtype: torch.dtype, other: torch.dtype) -> bool:
    """Whether momentum kept in one dtype can be copied into the other: not into or out of those that are rounded to."""
    return dtype == other or not {dtype, other} & {torch.bfloat16, torch.int8}


def encode_(kept: Mapping[str, Tensor], values: Tensor, interval: Interval, draws: Draws | None) -> None:
    """Write `values` (numel,) into what is kept of the interval's momentum: `exp_avg` (numel,), whose dtype says how, and, for int8,
    `exp_avg_scale` (pieces,). Without `draws` to the nearest: what was just decoded gives the same codes and scales again."""
    codes = kept[MOMENTUM]
    for part in _parts(interval, codes.device):
        mine, start = values[part.elements].float(), interval.start + part.elements.start
        bits = None if draws is None else draws.bits(start, start + mine.numel(), codes.device)
        if codes.dtype == torch.bfloat16:
            codes[part.elements] = mine.bfloat16() if bits is None else to_bfloat16(mine, bits)
        else:
            found, scale = _to_codes(mine.view(-1, part.width), None if bits is None else bits.view(-1, part.width))
            codes[part.elements] = found.view(-1)
            kept[SCALE][part.pieces] = scale


def decode(kept: Mapping[str, Tensor], interval: Interval) -> Tensor:
    """The momentum that is kept in bfloat16 or int8, as float32 (numel,)."""
    codes = kept[MOMENTUM]
    if codes.dtype == torch.bfloat16:
        return codes.float()
    values = torch.empty_like(codes, dtype=torch.float32)
    for part in _parts(interval, codes.device):
        code, scale = codes[part.elements].view(-1, part.width), kept[SCALE][part.pieces, None]
        values[part.elements] = from_codes(code, scale).view(-1)
    return values


def from_codes(codes: Tensor, scale: Tensor) -> Tensor:
    """float32 values of int8 codes; `scale` broadcasts."""
    codes = codes.float()
    return (codes * codes.abs()).mul_(_INVERSE).mul_(scale)


def _to_codes(values: Tensor, bits: Tensor | None) -> tuple[Tensor, Tensor]:
    """int8 codes (pieces, width) and scales (pieces,) of float32 values (pieces, width)."""
    magnitude = values.abs()
    scale = magnitude.amax(-1, keepdim=True)
    scale = torch.where(scale < TINY, 0.0, scale)
    fixed = (magnitude * torch.where(scale > 0, TOP / scale, 0.0)).to(torch.int32)
    fixed.masked_fill_(magnitude == torch.where(scale > 0, scale, torch.inf), TOP)
    low = (fixed >> 16).float().add_(0.5).sqrt_().to(torch.int32)
    rest, gap = fixed.sub_(low.square() << 16), 2 * low + 1
    if bits is None:
        up = rest << 1 > gap << 16
    else:
        up = ((bits >> 10) & 0x3FFFFF).mul_(gap) < rest << 6
    codes = low.add_(up).to(torch.int8)
    return torch.where(values < 0, -codes, codes), scale.squeeze(-1)


class _Part(NamedTuple):
    """Pieces of the same width, one after the other."""

    elements: slice
    """Counted from the interval's beginning."""
    pieces: slice
    width: int


def _parts(interval: Interval, device: torch.device) -> Iterator[_Part]:
    """An interval as a piece of a cut block, whole blocks, and a piece of another."""
    at, piece = interval.start, 0
    most = (CACHE_ELEMENTS if device.type == "cpu" else _PIECE_ELEMENTS) // BLOCK
    while at < interval.stop:
        blocks = min((interval.stop - at) // BLOCK, most)
        if at % BLOCK or not blocks:
            count, width = 1, min(BLOCK - at % BLOCK, interval.stop - at)
        else:
            count, width = blocks, BLOCK
        first = at - interval.start
        yield _Part(slice(first, first + count * width), slice(piece, piece + count), width)
        at, piece = at + count * width, piece + count
