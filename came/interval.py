"""A shard is an interval: what one rank holds of a parameter, seen as rectangles of its matrices.

Unsharded, under ZeRO-1/2 (a slice of one flat buffer), ZeRO-3 (a slice of each parameter) and FSDP2 (a block of rows), a rank's
share of a parameter is one contiguous interval `[start, stop)` of the row-major `[*, rows, cols]` tensor. Any such interval is at
most five rectangles, and each rectangle is a strided view of the rank's flat data: sums over rows and columns need no index arrays
and no copies.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor

CACHE_ELEMENTS = 2**18
"""Size of the pieces in which a CPU passes over a parameter: what a pass has read is still in the cache when it writes."""

Function = Callable[..., Any]
Factors = Sequence[Tensor]


@dataclass(frozen=True)
class Rectangle:
    """Part of an interval: `matrices x rows x cols` elements that lie row-major and without gaps in the flat data."""

    offset: int
    """First element, counted in the rank's flat data."""
    matrices: slice
    rows: slice
    cols: slice

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        matrices, rows, cols = self.matrices, self.rows, self.cols
        return matrices.stop - matrices.start, rows.stop - rows.start, cols.stop - cols.start

    @cached_property
    def numel(self) -> int:
        return prod(self.shape)

    def view(self, flat: Tensor) -> Tensor:
        """The rectangle of `flat` (numel,) as a (matrices, rows, cols) view."""
        _, rows, cols = self.shape
        return flat.as_strided(self.shape, (rows * cols, cols, 1), flat.storage_offset() + self.offset)

    def beside(self, factors: Factors) -> tuple[Tensor, ...]:
        """The parts of one value per row (matrices, rows) and one per column (matrices, cols) that lie beside this rectangle, as views
        that broadcast over it; nothing for no factors."""
        if not factors:
            return ()
        matrices, rows, cols = self.shape
        (row, all_rows), (col, all_cols) = ((factor, factor.shape[-1]) for factor in factors)
        row_at, col_at = (self.matrices.start * all_rows + self.rows.start, self.matrices.start * all_cols + self.cols.start)
        return (
            row.as_strided((matrices, rows, 1), (all_rows, 1, 1), row.storage_offset() + row_at),
            col.as_strided((matrices, 1, cols), (all_cols, cols, 1), col.storage_offset() + col_at),
        )


@dataclass(frozen=True)
class Interval:
    """The elements `[start, stop)` of a parameter of `shape`, in row-major order.

    A parameter of two or more dimensions is `factored`: a stack of (rows, cols) matrices made of its last two dimensions, as the
    published CAME and Adafactor treat it.
    """

    shape: tuple[int, ...]
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop <= prod(self.shape):
            raise ValueError(f"[{self.start}, {self.stop}) is not an interval of a parameter of shape {self.shape}")

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> "Interval":
        return cls(tuple(shape), 0, prod(shape))

    @property
    def numel(self) -> int:
        """Elements that this rank holds."""
        return self.stop - self.start

    @property
    def total(self) -> int:
        """Elements of the whole parameter."""
        return prod(self.shape)

    @property
    def factored(self) -> bool:
        return len(self.shape) >= 2

    @property
    def rows(self) -> int:
        return self.shape[-2] if self.factored else 1

    @property
    def cols(self) -> int:
        return self.shape[-1] if self.shape else 1

    @property
    def row_shape(self) -> tuple[int, int]:
        """Shape of one value per row of the whole parameter: (matrices, rows)."""
        return prod(self.shape[:-2]), self.rows

    @property
    def col_shape(self) -> tuple[int, int]:
        """Shape of one value per column of the whole parameter: (matrices, cols)."""
        return prod(self.shape[:-2]), self.cols

    @cached_property
    def rectangles(self) -> tuple[Rectangle, ...]:
        """At most five: the end of a row, rows, whole matrices, rows, the beginning of a row. A vector counts as one row."""
        found, at, cols, matrix = [], self.start, self.cols, self.rows * self.cols
        while at < self.stop:
            left = self.stop - at
            batch, within = divmod(at, matrix)
            row, col = divmod(within, cols)
            if col or left < cols:  # part of one row
                width = min(cols - col, left)
                shape = slice(batch, batch + 1), slice(row, row + 1), slice(col, col + width)
            elif row or left < matrix:  # whole rows of one matrix
                height = min(self.rows - row, left // cols)
                shape = slice(batch, batch + 1), slice(row, row + height), slice(0, cols)
            else:  # whole matrices
                shape = slice(batch, batch + left // matrix), slice(0, self.rows), slice(0, cols)
            found.append(Rectangle(at - self.start, *shape))
            at += found[-1].numel
        return tuple(found)

    @cached_property
    def cache_sized_rectangles(self) -> tuple[Rectangle, ...]:
        """The same elements in rectangles of at most `CACHE_ELEMENTS`, in the same order."""
        return tuple(part for rectangle in self.rectangles for part in _cut(rectangle))

    # One pass over the rank's elements: `function` is called with (matrices, rows, cols) views of the `flats`, each (numel,), followed by
    # the matching parts of the `factors`, one value per row (matrices, rows) and one per column (matrices, cols), which broadcast. It
    # may change the views in place. On a CPU it sees pieces that fit a core's cache, elsewhere as few pieces as there are.

    def _values(self, function: Function, flats: tuple[Tensor, ...], factors: Factors) -> Iterator[tuple[Rectangle, Any]]:
        for piece in self.cache_sized_rectangles if flats[0].device.type == "cpu" else self.rectangles:
            yield piece, function(*map(piece.view, flats), *piece.beside(factors))

    def each(self, function: Function, *flats: Tensor, factors: Factors = ()) -> None:
        """Call `function` for what it changes in place."""
        for _ in self._values(function, flats, factors):
            pass

    def sum(self, function: Function, *flats: Tensor, factors: Factors = ()) -> Tensor:
        """Sum of the function's values over this rank's elements, a scalar."""
        total = flats[0].new_zeros(())
        for _, values in self._values(function, flats, factors):
            total += values.sum()
        return total

    def row_col_sums(self, function: Function, *flats: Tensor, factors: Factors = ()) -> tuple[Tensor, Tensor]:
        """Sums of the function's values over columns and over rows.

        Returns row sums (matrices, rows) and column sums (matrices, cols) in full size, zero where this rank holds nothing, so that
        adding them over the ranks gives the sums of the whole parameter.
        """
        row, col = flats[0].new_zeros(self.row_shape), flats[0].new_zeros(self.col_shape)
        for piece, values in self._values(function, flats, factors):
            of_rows, of_cols = piece.beside((row, col))
            of_rows.add_(values.sum(-1, keepdim=True))
            of_cols.add_(values.sum(-2, keepdim=True))
        return row, col

    def row_col_max(self, function: Function, *flats: Tensor, factors: Factors = ()) -> tuple[Tensor, Tensor]:
        """Largest of the function's values over columns and over rows, likewise; the values are 0 or more."""
        row, col = flats[0].new_zeros(self.row_shape), flats[0].new_zeros(self.col_shape)
        for piece, values in self._values(function, flats, factors):
            of_rows, of_cols = piece.beside((row, col))
            torch.maximum(of_rows, values.amax(-1, keepdim=True), out=of_rows)
            torch.maximum(of_cols, values.amax(-2, keepdim=True), out=of_cols)
        return row, col


def _cut(rectangle: Rectangle) -> Iterator[Rectangle]:
    """A rectangle in parts of at most CACHE_ELEMENTS: whole matrices, else rows of one matrix, else part of one row."""
    _, rows, cols = rectangle.shape
    matrices_each = max(1, CACHE_ELEMENTS // (rows * cols))
    rows_each = max(1, min(rows, CACHE_ELEMENTS // cols))
    cols_each = min(cols, CACHE_ELEMENTS)
    at = rectangle.offset
    for matrices in _runs(rectangle.matrices, matrices_each):
        for row in _runs(rectangle.rows, rows_each):
            for col in _runs(rectangle.cols, cols_each):
                part = Rectangle(at, matrices, row, col)
                at += part.numel
                yield part


def _runs(whole: slice, length: int) -> Iterator[slice]:
    return (slice(start, min(start + length, whole.stop)) for start in range(whole.start, whole.stop, length))


def overlap(start: int, stop: int, other_start: int, other_stop: int) -> tuple[int, int]:
    """The common part of two half-open ranges; `(x, x)` where they have none."""
    low = max(start, other_start)
    return low, max(low, min(stop, other_stop))
