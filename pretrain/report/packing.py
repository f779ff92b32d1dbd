"""Curves in few characters: thinned where they are long, keeping each stretch's lowest, highest and mean value.

`page/data.js` unpacks.
"""

import base64
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

_CHARACTERS_PER_VALUE = 4 * 4 / 3
_CHARACTERS_PER_STRETCH = 11 * 4 / 3
_OFFSETS = 256
"""Places inside a stretch that can be told apart."""


def pack(values: np.ndarray, stretches: int) -> dict[str, Any]:
    """`values` (float64 [n], NaN for none) in at most `stretches` stretches of equal length, or whole where that is no longer.

    `n` values; `c`: all are this one, or else `v`, base64: with `k` = 1 all of them, else of each stretch of `k` values the lowest, the
    highest (all float32, little-endian), the places of these two in it and where between them the mean lies (all bytes, in 256ths).
    """
    count = len(values)
    if is_constant(values):
        return {"n": count, "c": _plain(values[0]) if count else None}
    if count * _CHARACTERS_PER_VALUE <= stretches * _CHARACTERS_PER_STRETCH:
        return {"n": count, "k": 1, "v": _text(_floats(values))}
    length = math.ceil(count / stretches)
    parts = np.full((math.ceil(count / length), length), np.nan)
    parts.ravel()[:count] = values
    known = np.isfinite(parts)
    low_place = np.where(known, parts, np.inf).argmin(axis=1)
    high_place = np.where(known, parts, -np.inf).argmax(axis=1)
    rows = np.arange(len(parts))
    low, high = parts[rows, low_place], parts[rows, high_place]
    mean = np.where(known, parts, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.nan_to_num((mean - low) / (high - low), nan=0.0, posinf=0.0, neginf=0.0)
    places = [place * _OFFSETS // max(length, _OFFSETS) for place in (low_place, high_place)]
    content = _floats(low) + _floats(high) + b"".join(column.astype(np.uint8).tobytes() for column in (*places, np.round(share * 255)))
    return {"n": count, "k": length, "v": _text(content)}


def stretches_within(characters: int, series: Iterable[tuple[np.ndarray, float]]) -> float:
    """How many stretches a series of weight 1 may have so that all of them, each with its weight, take no more than `characters`."""
    lengths = [(len(values), weight) for values, weight in series if not is_constant(values)]

    def cost(stretches: float) -> float:
        return sum(min(_CHARACTERS_PER_VALUE * count, _CHARACTERS_PER_STRETCH * (weight * stretches + 1)) for count, weight in lengths)

    low, high = 1.0, 1e7
    while high - low > 0.5:
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= characters else (low, middle)
    return low


def is_constant(values: np.ndarray) -> bool:
    return not len(values) or bool(np.all(values == values[0])) or not np.isfinite(values).any()


def knots(values: np.ndarray, most: int = 300) -> dict[str, list] | None:
    """A rising axis as the places where its slope changes, between which it is linear: exact with up to `most`, else evenly spaced.

    None where no value is known.
    """
    known = np.flatnonzero(np.isfinite(values))
    if not known.size:
        return None
    whole = np.interp(np.arange(len(values)), known, values[known])
    bends = np.flatnonzero(np.abs(np.diff(whole, 2)) > 1e-9 * max(1.0, abs(whole[-1]))) + 1
    places = np.unique(np.concatenate([[0], bends, [len(whole) - 1]]))
    if len(places) > most:
        places = np.unique(np.linspace(0, len(whole) - 1, most).round().astype(int))
    return {"i": places.tolist(), "v": [_plain(value) for value in whole[places]]}


def _floats(values: np.ndarray) -> bytes:
    """What is not finite, or too large for float32, is NaN."""
    with np.errstate(over="ignore"):
        short = values.astype("<f4")
    return np.where(np.isfinite(short), short, np.float32(np.nan)).astype("<f4").tobytes()


def _plain(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else float(f"{value:.7g}")


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
