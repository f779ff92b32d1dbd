"""Between the passes: the tiles' sums are added up in a fixed order and averaged into the state. Each program makes one part of the rows or
the columns of a matrix.

A parameter that this rank holds alone goes at once from its sums to its averages (`WHOLE`). One that is split over ranks goes in two
launches, with an all-reduce between them: `REDUCE` packs this rank's sums, `AVERAGE` takes the packed sums of all ranks.
"""

import triton
import triton.language as tl

from came.kernels import fields
from came.kernels.reading import averaged, hyper_of, of_matrix, of_part, pointer, sum_of

WHOLE = tl.constexpr(0)
REDUCE = tl.constexpr(1)
AVERAGE = tl.constexpr(2)

AT_ONCE = tl.constexpr(16)
"""Strips or column blocks whose sums are loaded together."""


@triton.jit
def finalise_squares(
    matrices, parts, hyper, scale, row_sums, col_sums, packed, row_blocks,
    MODE: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """After pass A: the averages of g^2 over rows and columns, and the sum of each part of the row averages."""
    part = tl.program_id(0)
    matrix, axis, first = of_part(parts, part, fields.PART_MATRIX), of_part(parts, part, fields.PART_AXIS), _first(parts, part)
    if axis != fields.CLIPPING_PART:
        index, inside, place = _place(matrices, matrix, axis, first, PART)
        if MODE == AVERAGE:
            sums = tl.load(packed + place, mask=inside, other=0.0)
        else:
            sums = _sums(matrices, matrix, axis, index, inside, row_sums, col_sums, tl.float32, PART)
        if MODE == REDUCE:
            tl.store(packed + place, sums, mask=inside)
        else:
            factor = tl.load(scale)
            mean = tl.div_rn(sums * (factor * factor), _length(matrices, matrix, axis)) + hyper_of(hyper, matrices, matrix, fields.EPS1)
            weight = hyper_of(hyper, matrices, matrix, fields.WEIGHT2)
            if axis == fields.ROWS_PART:
                block = row_blocks + of_matrix(matrices, matrix, fields.MATRIX_ROW_BLOCKS) + of_part(parts, part, fields.PART_BLOCK)
                averages = pointer(matrices, matrix, fields.MATRIX_ROW_AVERAGE, tl.float32) + index
                tl.store(block, tl.sum(_averaged(averages, mean, weight, inside), 0))
            else:
                _averaged(pointer(matrices, matrix, fields.MATRIX_COL_AVERAGE, tl.float32) + index, mean, weight, inside)


@triton.jit(do_not_specialize=["row_stride", "col_stride", "packed_stride"])
def finalise_residuals(
    matrices, parts, parameters, hyper, row_sums, row_stride, col_sums, col_stride, tile_sums,
    packed, packed_stride, row_blocks, clip_scales,
    MODE: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """After pass B: each parameter's clipping scale, the averages of the squared residual, and the sum of each part of the row averages."""
    part = tl.program_id(0)
    matrix, axis, first = of_part(parts, part, fields.PART_MATRIX), of_part(parts, part, fields.PART_AXIS), _first(parts, part)
    leads = of_part(parts, part, fields.PART_LEADS) != 0
    parameter = of_matrix(matrices, matrix, fields.MATRIX_PARAMETER)
    of_parameter = parameters + parameter * fields.PARAMETER
    if MODE == AVERAGE:
        squares = tl.load(packed + 3 * packed_stride + parameter)
    else:
        tiles = tile_sums + tl.load(of_parameter + fields.PARAMETER_FIRST_TILE)
        squares = sum_of(tiles, tl.load(of_parameter + fields.PARAMETER_TILES), tl.float64, 256)
    if MODE == REDUCE:
        if leads:
            tl.store(packed + 3 * packed_stride + parameter, squares)
    else:
        rms = tl.sqrt(squares / tl.load(of_parameter + fields.PARAMETER_TOTAL).to(tl.float64)).to(tl.float32)
        clip_scale = tl.div_rn(1.0, _at_least_one(tl.div_rn(rms, hyper_of(hyper, matrices, matrix, fields.CLIP_THRESHOLD))))
        if leads:
            tl.store(clip_scales + parameter, clip_scale)
    if axis != fields.CLIPPING_PART:
        index, inside, place = _place(matrices, matrix, axis, first, PART)
        if MODE == AVERAGE:
            squares_m = tl.load(packed + place, mask=inside, other=0.0)
            products = tl.load(packed + packed_stride + place, mask=inside, other=0.0)
            squares_u = tl.load(packed + 2 * packed_stride + place, mask=inside, other=0.0)
        else:
            squares_m = _sums(matrices, matrix, axis, index, inside, row_sums, col_sums, tl.float64, PART)
            products = _sums(matrices, matrix, axis, index, inside, row_sums + row_stride, col_sums + col_stride, tl.float64, PART)
            squares_u = _sums(matrices, matrix, axis, index, inside, row_sums + 2 * row_stride, col_sums + 2 * col_stride, tl.float64, PART)
        if MODE == REDUCE:
            tl.store(packed + place, squares_m, mask=inside)
            tl.store(packed + packed_stride + place, products, mask=inside)
            tl.store(packed + 2 * packed_stride + place, squares_u, mask=inside)
        else:
            s = clip_scale.to(tl.float64)
            lag = _at_least_zero(squares_m - 2.0 * s * products + s * s * squares_u).to(tl.float32)  # of s u from m; beta1 of it is left
            beta1 = hyper_of(hyper, matrices, matrix, fields.BETA1)
            mean = tl.div_rn(beta1 * beta1 * lag, _length(matrices, matrix, axis)) + hyper_of(hyper, matrices, matrix, fields.EPS2)
            weight = hyper_of(hyper, matrices, matrix, fields.WEIGHT3)
            if axis == fields.ROWS_PART:
                block = row_blocks + of_matrix(matrices, matrix, fields.MATRIX_ROW_BLOCKS) + of_part(parts, part, fields.PART_BLOCK)
                averages = pointer(matrices, matrix, fields.MATRIX_ROW_RESIDUAL, tl.float32) + index
                tl.store(block, tl.sum(_averaged(averages, mean, weight, inside), 0))
            else:
                _averaged(pointer(matrices, matrix, fields.MATRIX_COL_RESIDUAL, tl.float32) + index, mean, weight, inside)


@triton.jit
def _first(parts, part):
    return of_part(parts, part, fields.PART_FIRST)


@triton.jit
def _place(matrices, matrix, axis, first, PART: tl.constexpr):
    """The rows or columns of a part, which of them there are, and their places in what is packed: rows, then columns."""
    index = first + tl.arange(0, PART)
    rows, cols = of_matrix(matrices, matrix, fields.MATRIX_ROWS), of_matrix(matrices, matrix, fields.MATRIX_COLS)
    of_rows = axis == fields.ROWS_PART
    inside = index < tl.where(of_rows, rows, cols)
    return index, inside, of_matrix(matrices, matrix, fields.MATRIX_PACKED) + tl.where(of_rows, 0, rows) + index


@triton.jit
def _length(matrices, matrix, axis):
    """How many elements a row, or a column, has."""
    rows, cols = of_matrix(matrices, matrix, fields.MATRIX_ROWS), of_matrix(matrices, matrix, fields.MATRIX_COLS)
    return tl.where(axis == fields.ROWS_PART, cols, rows).to(tl.float32)


@triton.jit
def _sums(matrices, matrix, axis, index, inside, row_sums, col_sums, DTYPE: tl.constexpr, PART: tl.constexpr):
    """A part's sums over its tiles, (part,): those of rows over the column blocks, those of columns over the strips."""
    of_rows = axis == fields.ROWS_PART
    local_rows, cols = of_matrix(matrices, matrix, fields.MATRIX_LOCAL_ROWS), of_matrix(matrices, matrix, fields.MATRIX_COLS)
    place = tl.where(of_rows, index - of_matrix(matrices, matrix, fields.MATRIX_FIRST_ROW), index)
    stride = tl.where(of_rows, local_rows, cols)
    held = inside & (place >= 0) & (place < stride)
    row_place, col_place = of_matrix(matrices, matrix, fields.MATRIX_ROW_SUMS), of_matrix(matrices, matrix, fields.MATRIX_COL_SUMS)
    count = tl.where(of_rows, of_matrix(matrices, matrix, fields.MATRIX_COL_BLOCKS), of_matrix(matrices, matrix, fields.MATRIX_STRIPS)).to(
        tl.int32
    )
    if of_rows:
        values = row_sums + row_place
    else:
        values = col_sums + col_place
    total = tl.full([AT_ONCE, PART], 0.0, DTYPE)
    each = tl.arange(0, AT_ONCE)
    for at in range(0, count, AT_ONCE):
        mask = (at + each < count)[:, None] & held[None, :]
        total += tl.load(values + (at + each)[:, None] * stride + place[None, :], mask=mask, other=0.0)
    return tl.sum(total, 0)


@triton.jit
def _averaged(averages, mean, weight, inside):
    """Average `mean` into the state; returns the averages, 0 outside."""
    old = tl.load(averages, mask=inside, other=0.0)
    new = tl.where(inside, averaged(old, mean, weight), 0.0)
    tl.debug_barrier()  # there are more threads than elements: those that repeat others' must not load what these have stored
    tl.store(averages, new, mask=inside)
    return new


@triton.jit
def _at_least_one(value):
    """NaN stays NaN: tl.maximum would take the other."""
    return tl.where(value < 1.0, 1.0, value)


@triton.jit
def _at_least_zero(value):
    return tl.where(value < 0.0, 0.0, value)
