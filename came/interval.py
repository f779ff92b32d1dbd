"""A shard is an interval: what one rank holds of a parameter, seen as rectangles of its matrices.

Unsharded, under ZeRO-1/2 (a slice of one flat buffer), ZeRO-3 (a slice of each parameter) and FSDP2 (a block of rows), a rank's
share of a parameter is one contiguous interval `[start, stop)` of the row-major `[*, rows, cols]` tensor. Any such interval is at
most five rectangles, and each rectangle is a strided view of the rank's flat data: sums over rows and columns need no index arrays
and no copies.
"""

from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rectangle:
    """Part of an interval: `matrices x rows x cols` elements that lie row-major and without gaps in the flat data."""

    offset: int
    """First element, counted in the rank's flat data."""
    matrices: slice
    rows: slice
    cols: slice

    @property
    def shape(self) -> tuple[int, int, int]:
        return tuple(part.stop - part.start for part in (self.matrices, self.rows, self.cols))

    def view(self, flat: Tensor) -> Tensor:
        """The rectangle of `flat` (numel,) as a (matrices, rows, cols) view."""
        return flat[self.offset : self.offset + prod(self.shape)].view(self.shape)

    def of_rows(self, row: Tensor) -> Tensor:
        """The part of `row` (matrices, rows) beside this rectangle, as a view that broadcasts over columns."""
        return row[self.matrices, self.rows].unsqueeze(-1)

    def of_cols(self, col: Tensor) -> Tensor:
        """The part of `col` (matrices, cols) beside this rectangle, as a view that broadcasts over rows."""
        return col[self.matrices, self.cols].unsqueeze(-2)


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
        return self.shape[-2]

    @property
    def cols(self) -> int:
        return self.shape[-1]

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
        """At most five: the end of a row, rows, whole matrices, rows, the beginning of a row."""
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
            at += prod(found[-1].shape)
        return tuple(found)

    def row_col_sums(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of this rank's part of the parameter over columns and over rows.

        `flat` is (numel,). Returns row sums (matrices, rows) and column sums (matrices, cols) in full size, zero where this rank
        holds nothing, so that adding them over the ranks gives the sums of the whole parameter.
        """
        row, col = flat.new_zeros(self.row_shape), flat.new_zeros(self.col_shape)
        for rectangle in self.rectangles:
            part = rectangle.view(flat)
            rectangle.of_rows(row).squeeze(-1).add_(part.sum(-1))
            rectangle.of_cols(col).squeeze(-2).add_(part.sum(-2))
        return row, col

    def row_col_max(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Largest values of this rank's part over columns and over rows, in the shapes of `row_col_sums`.

        `flat` (numel,) is 0 or more everywhere, so that 0 can stand where this rank holds nothing.
        """
        row, col = flat.new_zeros(self.row_shape), flat.new_zeros(self.col_shape)
        for rectangle in self.rectangles:
            part = rectangle.view(flat)
            rows, cols = rectangle.of_rows(row).squeeze(-1), rectangle.of_cols(col).squeeze(-2)
            torch.maximum(rows, part.amax(-1), out=rows)
            torch.maximum(cols, part.amax(-2), out=cols)
        return row, col

    def min_outer(self, row: Tensor, col: Tensor) -> Tensor:
        """`min(row[i], col[j])` for this rank's elements: (numel,) from `row` (matrices, rows) and `col` (matrices, cols)."""
        flat = row.new_empty(self.numel)
        for rectangle in self.rectangles:
            torch.minimum(rectangle.of_rows(row), rectangle.of_cols(col), out=rectangle.view(flat))
        return flat

    def mul_outer_(self, flat: Tensor, row: Tensor, col: Tensor) -> Tensor:
        """`flat[i, j] *= row[i] * col[j]` in place; `flat` (numel,), `row` (matrices, rows), `col` (matrices, cols)."""
        for rectangle in self.rectangles:
            rectangle.view(flat).mul_(rectangle.of_rows(row)).mul_(rectangle.of_cols(col))
        return flat


def overlap(start: int, stop: int, other_start: int, other_stop: int) -> tuple[int, int]:
    """The common part of two half-open ranges; `(x, x)` where they have none."""
    low = max(start, other_start)
    return low, max(low, min(stop, other_stop))
