"""What all kernels begin with: reading the tables, and sums in a fixed order."""

import triton
import triton.language as tl

from came.kernels import fields


@triton.jit
def of_matrix(matrices, matrix, FIELD: tl.constexpr, ALIGNED: tl.constexpr = False):
    """One field of a matrix. The hint that it is a multiple of 16 must stand where the load does: passed in, it is lost."""
    value = tl.load(matrices + matrix * fields.MATRIX + FIELD)
    if ALIGNED:
        value = tl.multiple_of(value, 16)
    return value


@triton.jit
def of_tile(tiles, tile, FIELD: tl.constexpr, ALIGNED: tl.constexpr = False):
    value = tl.load(tiles + tile * fields.TILE + FIELD).to(tl.int32)
    if ALIGNED:
        value = tl.multiple_of(value, 16)
    return value


@triton.jit
def of_part(parts, part, FIELD: tl.constexpr):
    return tl.load(parts + part * fields.PART + FIELD).to(tl.int32)


@triton.jit
def pointer(matrices, matrix, FIELD: tl.constexpr, DTYPE: tl.constexpr, ALIGNED: tl.constexpr = False):
    """An address from the table. Without the hint it would be read 4 bytes at a time."""
    address = tl.load(matrices + matrix * fields.MATRIX + FIELD)
    if ALIGNED:
        address = tl.multiple_of(address, 16)
    found = address.to(tl.pointer_type(DTYPE))
    if ALIGNED:
        found = tl.multiple_of(found, 16)
    return found


@triton.jit
def gradient_pointer(matrices, gradients, matrix, DTYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """The first element of a matrix's gradient; gradients may lie elsewhere at every step."""
    address = tl.load(gradients + tl.load(matrices + matrix * fields.MATRIX + fields.MATRIX_HANDED))
    offset = tl.load(matrices + matrix * fields.MATRIX + fields.MATRIX_GRADIENT)
    if ALIGNED:
        address = tl.multiple_of(address, 16)
        offset = tl.multiple_of(offset, 16)
    found = address.to(tl.pointer_type(DTYPE))
    if ALIGNED:
        found = tl.multiple_of(found, 16)
    return found + offset


@triton.jit
def hyper_of(hyper, matrices, matrix, FIELD: tl.constexpr):
    return tl.load(hyper + tl.load(matrices + matrix * fields.MATRIX + fields.MATRIX_HYPER) * fields.HYPER + FIELD)


@triton.jit
def offset_of_tile(matrices, tiles, matrix, tile, ALIGNED: tl.constexpr):
    """The tile's first element, counted from the first that this rank holds of the matrix."""
    row, col = of_tile(tiles, tile, fields.TILE_ROW), of_tile(tiles, tile, fields.TILE_COL, ALIGNED)
    cols, start = of_matrix(matrices, matrix, fields.MATRIX_COLS, ALIGNED), of_matrix(matrices, matrix, fields.MATRIX_START, ALIGNED)
    return row.to(tl.int64) * cols + col - start


@triton.jit
def place_of_tile(matrices, tiles, matrix, tile):
    """The tile's first element, counted in the whole parameter."""
    row, col = of_tile(tiles, tile, fields.TILE_ROW), of_tile(tiles, tile, fields.TILE_COL)
    return of_matrix(matrices, matrix, fields.MATRIX_FIRST) + row.to(tl.int64) * of_matrix(matrices, matrix, fields.MATRIX_COLS) + col


@triton.jit
def columns_held(tiles, tile, BLOCK_COLS: tl.constexpr, ALIGNED: tl.constexpr):
    """Which of the tile's columns this rank holds in its rows, (block_cols,)."""
    cols = of_tile(tiles, tile, fields.TILE_COL, ALIGNED) + tl.arange(0, BLOCK_COLS)
    held = cols < of_tile(tiles, tile, fields.TILE_HIGH, ALIGNED)
    if not ALIGNED:
        held = held & (cols >= of_tile(tiles, tile, fields.TILE_LOW))
    return held


@triton.jit
def sum_of(values, count, DTYPE: tl.constexpr, BLOCK: tl.constexpr):
    """The sum of `count` values, always in the same order."""
    total = tl.full([BLOCK], 0.0, DTYPE)
    index = tl.arange(0, BLOCK)
    for at in range(0, count, BLOCK):
        total += tl.load(values + at + index, mask=at + index < count, other=0.0)
    return tl.sum(total, 0)


@triton.jit
def mean_of_rows(matrices, matrix, row_blocks):
    """The mean of a matrix's row averages, from the sums that the finalising programs left."""
    blocks = row_blocks + of_matrix(matrices, matrix, fields.MATRIX_ROW_BLOCKS)
    total = sum_of(blocks, of_matrix(matrices, matrix, fields.MATRIX_ROW_BLOCK_COUNT), tl.float32, 64)
    return tl.div_rn(total, of_matrix(matrices, matrix, fields.MATRIX_ROWS).to(tl.float32))


@triton.jit
def inverse_root(values):
    """`1 / sqrt(values)` of positive values to one unit in the last place. The GPU's own is off by two, for a whole row alike; this is that
    and a step of Newton's."""
    root = tl.rsqrt(values)
    return root + 0.5 * root * (1.0 - values * root * root)


@triton.jit
def averaged(old, new, weight):
    """`(1 - weight) old + weight new`, as torch.lerp has it: exact where one of them is all."""
    return tl.where(weight < 0.5, old + weight * (new - old), new - (new - old) * (1.0 - weight))


@triton.jit
def rounded(values, DTYPE: tl.constexpr, INTERPRETED: tl.constexpr):
    """float32 to the nearest value of another dtype; the interpreter would cut bfloat16 off."""
    if INTERPRETED and DTYPE == tl.bfloat16:
        bits = values.to(tl.uint32, bitcast=True)
        nearest = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).to(tl.float32, bitcast=True)
        values = tl.where(values == values, nearest, values)
    return values.to(DTYPE)
