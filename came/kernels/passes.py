"""The three passes over the elements: each program goes over one tile.

A, `square_sums`: sums of g^2 over the rows and columns of its tile. B, `update_sums`: of m^2, m u and u^2, where u is the update before
clipping. C, `move` and, over lines, `move_lines`: momentum and weights. Between them `came/kernels/finalise.py` adds the tiles' sums up.

The residual u s - m' of the clipped update from its new momentum m' = beta1 m + (1 - beta1) s u is beta1 (s u - m), so that its square sums
to beta1^2 (S[m^2] - 2 s S[m u] + s^2 S[u^2]). Thus one pass serves both the clipping scale s and the residual. The three sums cancel where
the momentum is close to the update; they are in double precision, in which the products of float32 are exact.

Every tile is gone over by code that knows its addresses to be aligned, or by code that does not.
"""

import triton
import triton.language as tl

from came.kernels import fields
from came.kernels.momentum import BLOCK, load, store
from came.kernels.reading import (
    averaged,
    columns_held,
    gradient_pointer,
    hyper_of,
    inverse_root,
    mean_of_rows,
    of_matrix,
    of_tile,
    offset_of_tile,
    place_of_tile,
    pointer,
    rounded,
)

# A -----------------------------------------------------------------------------------------------------------------------------


@triton.jit
def square_sums(
    matrices, tiles, gradients, row_sums, col_sums, tile_sums,
    GRADIENT: tl.constexpr, NORM: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr,
):  # fmt: skip
    """Row and column sums of g^2 of each tile; with `NORM` their total too, of vectors as well."""
    tile = tl.program_id(0)
    if NORM | (tl.load(matrices + of_tile(tiles, tile, fields.TILE_MATRIX) * fields.MATRIX + fields.MATRIX_KIND) != fields.VECTOR):
        if of_tile(tiles, tile, fields.TILE_ALIGNED) != 0:
            _square_sums(tile, matrices, tiles, gradients, row_sums, col_sums, tile_sums, GRADIENT, NORM, BLOCK_ROWS, BLOCK_COLS, True)
        else:
            _square_sums(tile, matrices, tiles, gradients, row_sums, col_sums, tile_sums, GRADIENT, NORM, BLOCK_ROWS, BLOCK_COLS, False)


@triton.jit
def _square_sums(
    tile, matrices, tiles, gradients, row_sums, col_sums, tile_sums,
    GRADIENT: tl.constexpr, NORM: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    matrix = of_tile(tiles, tile, fields.TILE_MATRIX)
    factored = of_matrix(matrices, matrix, fields.MATRIX_KIND) != fields.VECTOR
    cols, rows = of_matrix(matrices, matrix, fields.MATRIX_COLS, ALIGNED).to(tl.int32), of_tile(tiles, tile, fields.TILE_ROWS)
    offset = offset_of_tile(matrices, tiles, matrix, tile, ALIGNED)
    gradient = gradient_pointer(matrices, gradients, matrix, GRADIENT, ALIGNED) + offset
    held = columns_held(tiles, tile, BLOCK_COLS, ALIGNED)
    first_row, row_place, col_place = _places(matrices, tiles, matrix, tile)
    col = tl.arange(0, BLOCK_COLS)
    total = tl.full([BLOCK_ROWS, BLOCK_COLS], 0.0, tl.float32)
    for at in range(0, rows, BLOCK_ROWS):
        row = at + tl.arange(0, BLOCK_ROWS)
        element, mask = row[:, None] * cols + col[None, :], (row < rows)[:, None] & held[None, :]
        g = tl.load(gradient + element, mask=mask, other=0.0).to(tl.float32)
        total += g * g
        if factored:
            tl.store(row_sums + row_place + first_row + row, tl.sum(g * g, 1), mask=row < rows)
    of_cols = tl.sum(total, 0)
    if factored:
        tl.store(col_sums + col_place + col, of_cols, mask=_inside(matrices, tiles, matrix, tile, BLOCK_COLS))
    if NORM:
        tl.store(tile_sums + tile, tl.sum(of_cols, 0))


@triton.jit
def _places(matrices, tiles, matrix, tile):
    """Where a tile's sums go: its first row among the local ones, the place of its column block's row sums, and that of its column sums."""
    block_and_col = of_tile(tiles, tile, fields.TILE_COL)
    first_row = of_tile(tiles, tile, fields.TILE_ROW) - of_matrix(matrices, matrix, fields.MATRIX_FIRST_ROW)
    row_place = of_matrix(matrices, matrix, fields.MATRIX_ROW_SUMS) + of_tile(tiles, tile, fields.TILE_COL_BLOCK) * of_matrix(
        matrices, matrix, fields.MATRIX_LOCAL_ROWS
    )
    col_place = (
        of_matrix(matrices, matrix, fields.MATRIX_COL_SUMS)
        + of_tile(tiles, tile, fields.TILE_STRIP) * of_matrix(matrices, matrix, fields.MATRIX_COLS)
        + block_and_col
    )
    return first_row, row_place, col_place


@triton.jit
def _inside(matrices, tiles, matrix, tile, BLOCK_COLS: tl.constexpr):
    """Which of the tile's columns the matrix has."""
    return of_tile(tiles, tile, fields.TILE_COL) + tl.arange(0, BLOCK_COLS) < of_matrix(matrices, matrix, fields.MATRIX_COLS)


# B -----------------------------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["row_stride", "col_stride"])
def update_sums(
    matrices, tiles, gradients, hyper, scale, row_blocks, row_sums, row_stride, col_sums, col_stride, tile_sums,
    GRADIENT: tl.constexpr, MOMENTUM: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr,
):  # fmt: skip
    """Row and column sums of m^2, m u and u^2 of each tile, `row_stride` and `col_stride` apart, and the total of u^2. A vector's second
    moment is averaged here."""
    tile = tl.program_id(0)
    aligned = of_tile(tiles, tile, fields.TILE_ALIGNED) != 0
    if of_matrix(matrices, of_tile(tiles, tile, fields.TILE_MATRIX), fields.MATRIX_KIND) == fields.VECTOR:
        if aligned:
            _vector_update_sums(tile, matrices, tiles, gradients, hyper, scale, tile_sums, GRADIENT, BLOCK_ROWS, BLOCK_COLS, True)
        else:
            _vector_update_sums(tile, matrices, tiles, gradients, hyper, scale, tile_sums, GRADIENT, BLOCK_ROWS, BLOCK_COLS, False)
    else:
        if aligned:
            _matrix_update_sums(
                tile, matrices, tiles, gradients, hyper, scale, row_blocks, row_sums, row_stride, col_sums, col_stride, tile_sums,
                GRADIENT, MOMENTUM, BLOCK_ROWS, BLOCK_COLS, True,
            )  # fmt: skip
        else:
            _matrix_update_sums(
                tile, matrices, tiles, gradients, hyper, scale, row_blocks, row_sums, row_stride, col_sums, col_stride, tile_sums,
                GRADIENT, MOMENTUM, BLOCK_ROWS, BLOCK_COLS, False,
            )  # fmt: skip


@triton.jit
def _matrix_update_sums(
    tile, matrices, tiles, gradients, hyper, scale, row_blocks, row_sums, row_stride, col_sums, col_stride, tile_sums,
    GRADIENT: tl.constexpr, MOMENTUM: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    matrix = of_tile(tiles, tile, fields.TILE_MATRIX)
    cols, rows = of_matrix(matrices, matrix, fields.MATRIX_COLS, ALIGNED).to(tl.int32), of_tile(tiles, tile, fields.TILE_ROWS)
    offset = offset_of_tile(matrices, tiles, matrix, tile, ALIGNED)
    gradient = gradient_pointer(matrices, gradients, matrix, GRADIENT, ALIGNED) + offset
    codes = pointer(matrices, matrix, fields.MATRIX_MOMENTUM, MOMENTUM, ALIGNED) + offset
    scales = pointer(matrices, matrix, fields.MATRIX_SCALES, tl.float32)
    origin, first_block = place_of_tile(matrices, tiles, matrix, tile), of_matrix(matrices, matrix, fields.MATRIX_FIRST_BLOCK)
    held = columns_held(tiles, tile, BLOCK_COLS, ALIGNED)
    first_row, row_place, col_place = _places(matrices, tiles, matrix, tile)
    inside = _inside(matrices, tiles, matrix, tile, BLOCK_COLS)
    col = tl.arange(0, BLOCK_COLS)
    row_factor, row_average = _update_factors(matrices, tiles, matrix, tile, hyper, scale, row_blocks)
    col_factor = _col_factor(matrices, tiles, matrix, tile, fields.MATRIX_COL_AVERAGE, inside, BLOCK_COLS)
    squares_m = tl.full([BLOCK_ROWS, BLOCK_COLS], 0.0, tl.float64)
    products = tl.full([BLOCK_ROWS, BLOCK_COLS], 0.0, tl.float64)
    squares_u = tl.full([BLOCK_ROWS, BLOCK_COLS], 0.0, tl.float64)
    for at in range(0, rows, BLOCK_ROWS):
        row = at + tl.arange(0, BLOCK_ROWS)
        element, mask = row[:, None] * cols + col[None, :], (row < rows)[:, None] & held[None, :]
        g = tl.load(gradient + element, mask=mask, other=0.0).to(tl.float32)
        block = (origin + element) // BLOCK - first_block
        m = load(codes, scales, element, block, mask, MOMENTUM).to(tl.float64)
        factor = inverse_root(tl.load(row_average + row, mask=row < rows, other=1.0)) * row_factor
        u = (g * factor[:, None] * col_factor[None, :]).to(tl.float64)
        squares_m += m * m
        products += m * u
        squares_u += u * u
        place = row_sums + row_place + first_row + row
        tl.store(place, tl.sum(m * m, 1), mask=row < rows)
        tl.store(place + row_stride, tl.sum(m * u, 1), mask=row < rows)
        tl.store(place + 2 * row_stride, tl.sum(u * u, 1), mask=row < rows)
    of_cols = tl.sum(squares_u, 0)
    tl.store(col_sums + col_place + col, tl.sum(squares_m, 0), mask=inside)
    tl.store(col_sums + col_place + col_stride + col, tl.sum(products, 0), mask=inside)
    tl.store(col_sums + col_place + 2 * col_stride + col, of_cols, mask=inside)
    tl.store(tile_sums + tile, tl.sum(of_cols, 0))


@triton.jit
def _update_factors(matrices, tiles, matrix, tile, hyper, scale, row_blocks):
    """The update is g * (row_factor / sqrt(row_average)) / sqrt(col average), before clipping: the factor, and where the averages of the
    tile's rows begin."""
    row_average = pointer(matrices, matrix, fields.MATRIX_ROW_AVERAGE, tl.float32) + of_tile(tiles, tile, fields.TILE_ROW)
    return _row_factor(matrices, matrix, hyper, scale, row_blocks), row_average


@triton.jit
def _row_factor(matrices, matrix, hyper, scale, row_blocks):
    row_factor = tl.sqrt_rn(mean_of_rows(matrices, matrix, row_blocks)) * hyper_of(hyper, matrices, matrix, fields.UPDATE_FACTOR)
    return row_factor * (tl.load(scale) * hyper_of(hyper, matrices, matrix, fields.SIGN))


@triton.jit
def _confidence(matrices, matrix, hyper, residual_row_blocks):
    """Momentum is multiplied by (this / sqrt(row residual)) / sqrt(column residual)."""
    return tl.sqrt_rn(mean_of_rows(matrices, matrix, residual_row_blocks)) * hyper_of(hyper, matrices, matrix, fields.MATRIX_FACTOR)


@triton.jit
def _col_factor(matrices, tiles, matrix, tile, FIELD: tl.constexpr, inside, BLOCK_COLS: tl.constexpr):
    averages = pointer(matrices, matrix, FIELD, tl.float32) + of_tile(tiles, tile, fields.TILE_COL)
    return inverse_root(tl.load(averages + tl.arange(0, BLOCK_COLS), mask=inside, other=1.0))


@triton.jit
def _vector_update_sums(
    tile, matrices, tiles, gradients, hyper, scale, tile_sums,
    GRADIENT: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    matrix = of_tile(tiles, tile, fields.TILE_MATRIX)
    rows = of_tile(tiles, tile, fields.TILE_ROWS)
    offset = offset_of_tile(matrices, tiles, matrix, tile, ALIGNED)
    gradient = gradient_pointer(matrices, gradients, matrix, GRADIENT, ALIGNED) + offset
    second = pointer(matrices, matrix, fields.MATRIX_SECOND, tl.float32, ALIGNED) + offset
    held = columns_held(tiles, tile, BLOCK_COLS, ALIGNED)
    factor = tl.load(scale) * hyper_of(hyper, matrices, matrix, fields.SIGN)
    weight2, eps1 = hyper_of(hyper, matrices, matrix, fields.WEIGHT2), hyper_of(hyper, matrices, matrix, fields.EPS1)
    update_factor = hyper_of(hyper, matrices, matrix, fields.UPDATE_FACTOR)
    squares = tl.full([BLOCK_ROWS, BLOCK_COLS], 0.0, tl.float64)
    for at in range(0, rows, BLOCK_ROWS):
        row = at + tl.arange(0, BLOCK_ROWS)
        element = row[:, None] * BLOCK_COLS + tl.arange(0, BLOCK_COLS)[None, :]
        mask = (row < rows)[:, None] & held[None, :]
        g = tl.load(gradient + element, mask=mask, other=0.0).to(tl.float32) * factor
        v = tl.load(second + element, mask=mask, other=1.0)
        v = averaged(v, g * g + eps1, weight2)
        tl.store(second + element, v, mask=mask)
        u = (g * inverse_root(v) * update_factor).to(tl.float64)
        squares += u * u
    tl.store(tile_sums + tile, tl.sum(tl.sum(squares, 0), 0))


# C -----------------------------------------------------------------------------------------------------------------------------


@triton.jit
def move(
    matrices, tiles, gradients, hyper, scale, row_blocks, residual_row_blocks, clip_scales, keys, tile_sums,
    GRADIENT: tl.constexpr, MOMENTUM: tl.constexpr, WEIGHT: tl.constexpr, OBSERVE: tl.constexpr, INTERPRETED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr,
):  # fmt: skip
    """New momentum and weights; with `OBSERVE` also each tile's sum of squares of what the learning rate multiplies."""
    tile = tl.program_id(0)
    aligned = of_tile(tiles, tile, fields.TILE_ALIGNED) != 0
    if of_matrix(matrices, of_tile(tiles, tile, fields.TILE_MATRIX), fields.MATRIX_KIND) == fields.VECTOR:
        if aligned:
            _move_vector(
                tile, matrices, tiles, gradients, hyper, scale, clip_scales, keys, tile_sums,
                GRADIENT, MOMENTUM, WEIGHT, OBSERVE, INTERPRETED, BLOCK_ROWS, BLOCK_COLS, True,
            )  # fmt: skip
        else:
            _move_vector(
                tile, matrices, tiles, gradients, hyper, scale, clip_scales, keys, tile_sums,
                GRADIENT, MOMENTUM, WEIGHT, OBSERVE, INTERPRETED, BLOCK_ROWS, BLOCK_COLS, False,
            )  # fmt: skip
    else:
        if aligned:
            _move_matrix(
                tile, matrices, tiles, gradients, hyper, scale, row_blocks, residual_row_blocks, clip_scales, keys, tile_sums,
                GRADIENT, MOMENTUM, WEIGHT, OBSERVE, INTERPRETED, BLOCK_ROWS, BLOCK_COLS, True,
            )  # fmt: skip
        else:
            _move_matrix(
                tile, matrices, tiles, gradients, hyper, scale, row_blocks, residual_row_blocks, clip_scales, keys, tile_sums,
                GRADIENT, MOMENTUM, WEIGHT, OBSERVE, INTERPRETED, BLOCK_ROWS, BLOCK_COLS, False,
            )  # fmt: skip


@triton.jit
def _move_matrix(
    tile, matrices, tiles, gradients, hyper, scale, row_blocks, residual_row_blocks, clip_scales, keys, tile_sums,
    GRADIENT: tl.constexpr, MOMENTUM: tl.constexpr, WEIGHT: tl.constexpr, OBSERVE: tl.constexpr, INTERPRETED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    matrix = of_tile(tiles, tile, fields.TILE_MATRIX)
    cols, rows = of_matrix(matrices, matrix, fields.MATRIX_COLS, ALIGNED).to(tl.int32), of_tile(tiles, tile, fields.TILE_ROWS)
    offset = offset_of_tile(matrices, tiles, matrix, tile, ALIGNED)
    gradient = gradient_pointer(matrices, gradients, matrix, GRADIENT, ALIGNED) + offset
    codes = pointer(matrices, matrix, fields.MATRIX_MOMENTUM, MOMENTUM, ALIGNED) + offset
    scales = pointer(matrices, matrix, fields.MATRIX_SCALES, tl.float32)
    origin, first_block = place_of_tile(matrices, tiles, matrix, tile), of_matrix(matrices, matrix, fields.MATRIX_FIRST_BLOCK)
    weight = pointer(matrices, matrix, fields.MATRIX_WEIGHT, WEIGHT, ALIGNED) + offset
    held = columns_held(tiles, tile, BLOCK_COLS, ALIGNED)
    inside = _inside(matrices, tiles, matrix, tile, BLOCK_COLS)
    col = tl.arange(0, BLOCK_COLS)
    row_factor, row_average = _update_factors(matrices, tiles, matrix, tile, hyper, scale, row_blocks)
    parameter = of_matrix(matrices, matrix, fields.MATRIX_PARAMETER)
    row_factor *= tl.load(clip_scales + parameter)
    key = keys + 2 * parameter
    col_factor = _col_factor(matrices, tiles, matrix, tile, fields.MATRIX_COL_AVERAGE, inside, BLOCK_COLS)
    confidence = _confidence(matrices, matrix, hyper, residual_row_blocks)
    row_residual = pointer(matrices, matrix, fields.MATRIX_ROW_RESIDUAL, tl.float32) + of_tile(tiles, tile, fields.TILE_ROW)
    col_confidence = _col_factor(matrices, tiles, matrix, tile, fields.MATRIX_COL_RESIDUAL, inside, BLOCK_COLS)
    lr, decay = hyper_of(hyper, matrices, matrix, fields.LR), hyper_of(hyper, matrices, matrix, fields.WEIGHT_DECAY)
    weight1 = hyper_of(hyper, matrices, matrix, fields.WEIGHT1)
    squares = tl.full([BLOCK_ROWS, BLOCK_COLS], 0.0, tl.float32)
    for at in range(0, rows, BLOCK_ROWS):
        row = at + tl.arange(0, BLOCK_ROWS)
        element, mask = row[:, None] * cols + col[None, :], (row < rows)[:, None] & held[None, :]
        g = tl.load(gradient + element, mask=mask, other=0.0).to(tl.float32)
        block = (origin + element) // BLOCK - first_block
        m = load(codes, scales, element, block, mask, MOMENTUM)
        p = tl.load(weight + element, mask=mask, other=0.0).to(tl.float32)
        factor = inverse_root(tl.load(row_average + row, mask=row < rows, other=1.0)) * row_factor
        row_confidence = inverse_root(tl.load(row_residual + row, mask=row < rows, other=1.0)) * confidence
        m = averaged(m, g * factor[:, None] * col_factor[None, :], weight1)
        direction = m * row_confidence[:, None] * col_confidence[None, :] + decay * p
        index = (origin + element).to(tl.uint32)
        store(codes, scales, element, block, index, key, m, mask, MOMENTUM, BLOCK_ROWS, BLOCK_COLS)
        tl.store(weight + element, rounded(p - lr * direction, WEIGHT, INTERPRETED), mask=mask)
        if OBSERVE:
            squares += tl.where(mask, direction * direction, 0.0)
    if OBSERVE:
        tl.store(tile_sums + tile, tl.sum(tl.sum(squares, 0), 0).to(tl.float64))


@triton.jit
def _move_vector(
    tile, matrices, tiles, gradients, hyper, scale, clip_scales, keys, tile_sums,
    GRADIENT: tl.constexpr, MOMENTUM: tl.constexpr, WEIGHT: tl.constexpr, OBSERVE: tl.constexpr, INTERPRETED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    matrix = of_tile(tiles, tile, fields.TILE_MATRIX)
    rows = of_tile(tiles, tile, fields.TILE_ROWS)
    offset = offset_of_tile(matrices, tiles, matrix, tile, ALIGNED)
    gradient = gradient_pointer(matrices, gradients, matrix, GRADIENT, ALIGNED) + offset
    codes = pointer(matrices, matrix, fields.MATRIX_MOMENTUM, MOMENTUM, ALIGNED) + offset
    scales = pointer(matrices, matrix, fields.MATRIX_SCALES, tl.float32)
    origin, first_block = place_of_tile(matrices, tiles, matrix, tile), of_matrix(matrices, matrix, fields.MATRIX_FIRST_BLOCK)
    weight = pointer(matrices, matrix, fields.MATRIX_WEIGHT, WEIGHT, ALIGNED) + offset
    second = pointer(matrices, matrix, fields.MATRIX_SECOND, tl.float32, ALIGNED) + offset
    held = columns_held(tiles, tile, BLOCK_COLS, ALIGNED)
    update_factor = (
        tl.load(scale) * hyper_of(hyper, matrices, matrix, fields.SIGN) * hyper_of(hyper, matrices, matrix, fields.UPDATE_FACTOR)
    )
    parameter = of_matrix(matrices, matrix, fields.MATRIX_PARAMETER)
    update_factor *= tl.load(clip_scales + parameter)
    key = keys + 2 * parameter
    momentum_factor = hyper_of(hyper, matrices, matrix, fields.VECTOR_FACTOR)
    lr, decay = hyper_of(hyper, matrices, matrix, fields.LR), hyper_of(hyper, matrices, matrix, fields.WEIGHT_DECAY)
    weight1 = hyper_of(hyper, matrices, matrix, fields.WEIGHT1)
    squares = tl.full([BLOCK_ROWS, BLOCK_COLS], 0.0, tl.float32)
    for at in range(0, rows, BLOCK_ROWS):
        row = at + tl.arange(0, BLOCK_ROWS)
        element = row[:, None] * BLOCK_COLS + tl.arange(0, BLOCK_COLS)[None, :]
        mask = (row < rows)[:, None] & held[None, :]
        g = tl.load(gradient + element, mask=mask, other=0.0).to(tl.float32)
        block = (origin + element) // BLOCK - first_block
        m = load(codes, scales, element, block, mask, MOMENTUM)
        p = tl.load(weight + element, mask=mask, other=0.0).to(tl.float32)
        v = tl.load(second + element, mask=mask, other=1.0)
        m = averaged(m, g * inverse_root(v) * update_factor, weight1)
        direction = m * momentum_factor + decay * p
        index = (origin + element).to(tl.uint32)
        store(codes, scales, element, block, index, key, m, mask, MOMENTUM, BLOCK_ROWS, BLOCK_COLS)
        tl.store(weight + element, rounded(p - lr * direction, WEIGHT, INTERPRETED), mask=mask)
        if OBSERVE:
            squares += tl.where(mask, direction * direction, 0.0)
    if OBSERVE:
        tl.store(tile_sums + tile, tl.sum(tl.sum(squares, 0), 0).to(tl.float64))


@triton.jit
def move_lines(
    matrices, tiles, gradients, hyper, scale, row_blocks, residual_row_blocks, clip_scales, keys, tile_sums,
    GRADIENT: tl.constexpr, MOMENTUM: tl.constexpr, WEIGHT: tl.constexpr, OBSERVE: tl.constexpr, INTERPRETED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr,
):  # fmt: skip
    """`move` of matrices whose 8-bit blocks begin and end within rows: `tiles` are of lines, which hold whole blocks."""
    tile = tl.program_id(0)
    if of_tile(tiles, tile, fields.TILE_ALIGNED) != 0:
        _move_lines(
            tile, matrices, tiles, gradients, hyper, scale, row_blocks, residual_row_blocks, clip_scales, keys, tile_sums,
            GRADIENT, MOMENTUM, WEIGHT, OBSERVE, INTERPRETED, BLOCK_ROWS, BLOCK_COLS, True,
        )  # fmt: skip
    else:
        _move_lines(
            tile, matrices, tiles, gradients, hyper, scale, row_blocks, residual_row_blocks, clip_scales, keys, tile_sums,
            GRADIENT, MOMENTUM, WEIGHT, OBSERVE, INTERPRETED, BLOCK_ROWS, BLOCK_COLS, False,
        )  # fmt: skip


@triton.jit
def _move_lines(
    tile, matrices, tiles, gradients, hyper, scale, row_blocks, residual_row_blocks, clip_scales, keys, tile_sums,
    GRADIENT: tl.constexpr, MOMENTUM: tl.constexpr, WEIGHT: tl.constexpr, OBSERVE: tl.constexpr, INTERPRETED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLS: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    lines = of_tile(tiles, tile, fields.TILE_MATRIX)
    stack = of_matrix(matrices, lines, fields.MATRIX_STACK)
    matrix_rows, matrix_cols = of_matrix(matrices, stack, fields.MATRIX_ROWS), of_matrix(matrices, stack, fields.MATRIX_COLS)
    rows = of_tile(tiles, tile, fields.TILE_ROWS)
    offset = offset_of_tile(matrices, tiles, lines, tile, ALIGNED)
    gradient = gradient_pointer(matrices, gradients, lines, GRADIENT, ALIGNED) + offset
    codes = pointer(matrices, lines, fields.MATRIX_MOMENTUM, MOMENTUM, ALIGNED) + offset
    scales = pointer(matrices, lines, fields.MATRIX_SCALES, tl.float32)
    origin, first_block = place_of_tile(matrices, tiles, lines, tile), of_matrix(matrices, lines, fields.MATRIX_FIRST_BLOCK)
    weight = pointer(matrices, lines, fields.MATRIX_WEIGHT, WEIGHT, ALIGNED) + offset
    held = columns_held(tiles, tile, BLOCK_COLS, ALIGNED)
    last = origin + (rows - 1) * BLOCK_COLS + of_tile(tiles, tile, fields.TILE_HIGH) - 1
    row_averages = pointer(matrices, stack, fields.MATRIX_ROW_AVERAGE, tl.float32)
    col_averages = pointer(matrices, stack, fields.MATRIX_COL_AVERAGE, tl.float32)
    row_residuals = pointer(matrices, stack, fields.MATRIX_ROW_RESIDUAL, tl.float32)
    col_residuals = pointer(matrices, stack, fields.MATRIX_COL_RESIDUAL, tl.float32)
    parameter = of_matrix(matrices, lines, fields.MATRIX_PARAMETER)
    clip_scale, key = tl.load(clip_scales + parameter), keys + 2 * parameter
    lr, decay = hyper_of(hyper, matrices, lines, fields.LR), hyper_of(hyper, matrices, lines, fields.WEIGHT_DECAY)
    weight1 = hyper_of(hyper, matrices, lines, fields.WEIGHT1)
    squares = tl.full([BLOCK_ROWS, BLOCK_COLS], 0.0, tl.float32)
    for at in range(0, rows, BLOCK_ROWS):
        row = at + tl.arange(0, BLOCK_ROWS)
        element = row[:, None] * BLOCK_COLS + tl.arange(0, BLOCK_COLS)[None, :]
        mask = (row < rows)[:, None] & held[None, :]
        first = origin + at * BLOCK_COLS
        first_row = first // matrix_cols  # of the whole stack
        along = (first - first_row * matrix_cols).to(tl.int32) + element - at * BLOCK_COLS
        down = along // matrix_cols.to(tl.int32)
        first_matrix = first_row // matrix_rows
        last_matrix = tl.minimum(last, first + BLOCK_ROWS * BLOCK_COLS - 1) // (matrix_rows * matrix_cols)
        row_factor = tl.full([BLOCK_ROWS, BLOCK_COLS], 0.0, tl.float32)
        confidence = tl.full([BLOCK_ROWS, BLOCK_COLS], 0.0, tl.float32)
        in_stack = tl.full([BLOCK_ROWS, BLOCK_COLS], 0, tl.int32)
        for number in range(0, (last_matrix - first_matrix + 1).to(tl.int32)):
            matrix = stack + first_matrix + number
            begun = down >= ((first_matrix + number) * matrix_rows - first_row).to(tl.int32)
            row_factor = tl.where(begun, _row_factor(matrices, matrix, hyper, scale, row_blocks) * clip_scale, row_factor)
            confidence = tl.where(begun, _confidence(matrices, matrix, hyper, residual_row_blocks), confidence)
            in_stack = tl.where(begun, number, in_stack)
        col = along + (in_stack - down) * matrix_cols.to(tl.int32)  # from the first column of the chunk's first matrix
        before = first_matrix * matrix_cols
        g = tl.load(gradient + element, mask=mask, other=0.0).to(tl.float32)
        block = (origin + element) // BLOCK - first_block
        m = load(codes, scales, element, block, mask, MOMENTUM)
        p = tl.load(weight + element, mask=mask, other=0.0).to(tl.float32)
        factor = inverse_root(tl.load(row_averages + first_row + down, mask=mask, other=1.0)) * row_factor
        col_factor = inverse_root(tl.load(col_averages + before + col, mask=mask, other=1.0))
        row_confidence = inverse_root(tl.load(row_residuals + first_row + down, mask=mask, other=1.0)) * confidence
        col_confidence = inverse_root(tl.load(col_residuals + before + col, mask=mask, other=1.0))
        m = averaged(m, g * factor * col_factor, weight1)
        direction = m * row_confidence * col_confidence + decay * p
        index = (origin + element).to(tl.uint32)
        store(codes, scales, element, block, index, key, m, mask, MOMENTUM, BLOCK_ROWS, BLOCK_COLS)
        tl.store(weight + element, rounded(p - lr * direction, WEIGHT, INTERPRETED), mask=mask)
        if OBSERVE:
            squares += tl.where(mask, direction * direction, 0.0)
    if OBSERVE:
        tl.store(tile_sums + tile, tl.sum(tl.sum(squares, 0), 0).to(tl.float64))
