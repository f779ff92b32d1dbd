"""The factored second moment of Adafactor (Shazeer and Stern, 2018, Algorithms 1 and 4), which CAME uses twice."""

from typing import Any

from torch import Tensor

from came.interval import Interval


def averaged_factors(
    interval: Interval, row_avg: Tensor, col_avg: Tensor, sums: tuple[Tensor, Tensor], weight: float, eps: float
) -> tuple[Tensor, Tensor]:
    """Average the row and column means into the state; return the factors of `1 / sqrt(row col / mean(row))`.

    `row_avg` (matrices, rows) and `col_avg` (matrices, cols) are updated in place, with `weight` (1 - beta) for the new means; `sums`
    are those of the whole parameter.
    """
    row_sum, col_sum = sums
    row_avg.lerp_(row_sum / interval.cols + eps, weight)
    col_avg.lerp_(col_sum / interval.rows + eps, weight)
    return (row_avg / row_avg.mean(-1, keepdim=True)).rsqrt_(), col_avg.rsqrt()


def clipping(interval: Interval, sum_of_squares: Tensor, hyper: dict[str, Any]) -> Tensor:
    """What an update is divided by, so that its RMS over the whole parameter is at most `clip_threshold`; a scalar."""
    return ((sum_of_squares / interval.total).sqrt_() / hyper["clip_threshold"]).clamp_(min=1.0)


def squares_of_scaled(g: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Sums over the columns of `(g[i, j] * row[i] * col[j])^2`, (matrices, rows, 1). Not as a matrix product, which on a GPU would be made
    in TF32 wherever the model's are."""
    return g.square().mul_(col.square()).sum(-1, keepdim=True).mul_(row.square())


def scaled(values: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """`values[i, j] * row[i] * col[j]`, a new tensor."""
    return (values * row).mul_(col)
