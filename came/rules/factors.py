"""The factored second moment of Adafactor (Shazeer and Stern, 2018, Algorithms 1 and 4), which CAME uses twice."""

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
