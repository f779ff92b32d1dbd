"""From intervals to the kernels' tables: which tiles there are, and where everything lies."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from came.interval import Interval, overlap
from came.kernels import fields
from came.momentum import BLOCK, MOMENTUM, SCALE
from came.state import StateViews

ALIGNMENT_BYTES = 16
"""What the widest loads need; in elements it is also the multiple that the hints in the kernels speak of."""


@dataclass(frozen=True)
class Geometry:
    """Sizes of what one program does; powers of two, but for `strip_rows`, a multiple of `block_rows`."""

    strip_rows: int = 128
    """Most rows of a tile."""
    block_rows: int = 4
    """Rows that a program holds at a time,"""
    few_block_rows: int = 2
    """fewer in pass B, whose sums in double precision take twice the registers, and where momentum in 8 bits is written,"""
    block_cols: int = 512
    """and columns: those of a tile."""
    part: int = 64
    """Rows or columns that a finalising program makes."""


@dataclass(frozen=True)
class Piece:
    """What this rank holds of one parameter: elements of a handed tensor, of its gradient and of its state."""

    interval: Interval
    handed: int
    """Number of the handed tensor among those of the step."""
    offset: int
    """First element in the handed tensor and in its gradient."""
    weights: Tensor
    """(numel,), a view."""
    state: StateViews
    row: int
    """Of the hyper-parameters."""
    number: int
    """Of the parameter, in the optimizer's order."""


@dataclass
class Strip:
    """Rows of a matrix of which this rank holds the columns [low, high)."""

    row: int
    rows: int
    low: int
    high: int


@dataclass
class Tables:
    """The tables, on the host, and the sizes of what the sums need."""

    matrices: list[list[int]] = field(default_factory=list)
    tiles: list[list[int]] = field(default_factory=list)
    flat_tiles: list[list[int]] = field(default_factory=list)
    """Of lines; pass C goes over these in place of the `tiles` from `moved_tiles` on."""
    parts: list[list[int]] = field(default_factory=list)
    parameters: list[list[int]] = field(default_factory=list)
    moved_tiles: int = 0
    row_sums: int = 0
    col_sums: int = 0
    packed: int = 0
    """Rows and columns of all matrices."""
    row_blocks: int = 0


def strips(start: int, stop: int, cols: int, strip_rows: int) -> Iterator[Strip]:
    """The elements [start, stop) of a matrix of `cols` columns as strips, from the top: the end of a row, whole rows, the beginning of a
    row."""
    while start < stop:
        row, low = divmod(start, cols)
        whole = (stop - start) // cols if low == 0 else 0
        if whole:
            rows, high = min(whole, strip_rows), cols
        else:
            rows, high = 1, min(cols, low + stop - start)
        yield Strip(row, rows, low, high)
        start += rows * (high - low)


def cuts_blocks(piece: Piece) -> bool:
    """Whether blocks of 8-bit momentum begin and end within the rows of the piece's matrices; the same on all ranks."""
    interval = piece.interval
    return SCALE in piece.state and interval.factored and interval.cols % BLOCK != 0


def build(pieces: Sequence[Piece], geometry: Geometry, gradient_addresses: Sequence[int]) -> Tables:
    """Tables of the pieces, those that `cuts_blocks` the last. `gradient_addresses` are those of the handed tensors' gradients, and decide
    with the others which tiles are aligned."""
    tables = Tables()
    for number, piece in enumerate(pieces):
        first_tile = len(tables.tiles)
        gradient = gradient_addresses[piece.handed] % ALIGNMENT_BYTES == 0 and piece.offset % ALIGNMENT_BYTES == 0
        matrices = _factored(piece) if piece.interval.factored else [_vector(piece, geometry)]
        for order, record in enumerate(matrices):
            record |= {fields.MATRIX_PARAMETER: number, fields.MATRIX_HYPER: piece.row, fields.MATRIX_HANDED: piece.handed}
            _add_matrix(tables, record, gradient, order == 0, geometry)
        if cuts_blocks(piece):
            _add_lines(tables, piece, gradient, geometry)
        else:
            tables.moved_tiles = len(tables.tiles)
        tables.parameters.append([first_tile, len(tables.tiles) - first_tile, piece.interval.total])
    return tables


def _factored(piece: Piece) -> Iterator[dict]:
    """The matrices of a parameter of two or more dimensions."""
    interval, size = piece.interval, piece.interval.rows * piece.interval.cols
    for matrix in range(interval.row_shape[0]):
        start, stop = overlap(interval.start, interval.stop, matrix * size, (matrix + 1) * size)
        if start == stop:  # nothing of it is here; it takes part in the sums over the ranks
            start = stop = matrix * size
        local = start - interval.start if start < stop else 0
        yield {
            **_elements(piece, local, stop - start),
            fields.MATRIX_KIND: 0,
            fields.MATRIX_ROWS: interval.rows,
            fields.MATRIX_COLS: interval.cols,
            fields.MATRIX_START: start - matrix * size,
            fields.MATRIX_FIRST: matrix * size,
            fields.MATRIX_ROW_AVERAGE: piece.state["exp_avg_sq_row"][matrix].data_ptr(),
            fields.MATRIX_COL_AVERAGE: piece.state["exp_avg_sq_col"][matrix].data_ptr(),
            fields.MATRIX_ROW_RESIDUAL: piece.state["exp_avg_res_row"][matrix].data_ptr(),
            fields.MATRIX_COL_RESIDUAL: piece.state["exp_avg_res_col"][matrix].data_ptr(),
        }


def _vector(piece: Piece, geometry: Geometry) -> dict:
    """A parameter of one dimension or none: no sums over rows and columns, so that it may lie in rows of any length."""
    return {
        **_elements(piece, 0, piece.interval.numel),
        fields.MATRIX_KIND: fields.VECTOR.value,
        fields.MATRIX_COLS: geometry.block_cols,
        fields.MATRIX_START: piece.interval.start,
        fields.MATRIX_SECOND: piece.state["exp_avg_sq"].data_ptr(),
    }


_NUMEL = "numel"


def _elements(piece: Piece, local: int, numel: int) -> dict:
    """Where `numel` elements lie, the first of them the piece's `local`."""
    momentum = piece.state[MOMENTUM]
    return {
        _NUMEL: numel,
        fields.MATRIX_GRADIENT: piece.offset + local,
        fields.MATRIX_WEIGHT: piece.weights.data_ptr() + local * piece.weights.element_size(),
        fields.MATRIX_MOMENTUM: momentum.data_ptr() + local * momentum.element_size(),
        fields.MATRIX_SCALES: piece.state[SCALE].data_ptr() if SCALE in piece.state else 0,
        fields.MATRIX_FIRST_BLOCK: piece.interval.start // BLOCK,
    }


def _add_matrix(tables: Tables, record: dict, gradient_aligned: bool, leads: bool, geometry: Geometry) -> None:
    number, factored = len(tables.matrices), record[fields.MATRIX_KIND] != fields.VECTOR.value
    rows, cols, start = record.get(fields.MATRIX_ROWS, 0), record[fields.MATRIX_COLS], record.get(fields.MATRIX_START, 0)
    held = list(strips(start, start + record[_NUMEL], cols, geometry.strip_rows))
    col_blocks = -(-cols // geometry.block_cols)
    tables.tiles += _tiles(number, record, held, gradient_aligned, col_blocks, geometry)
    local_rows = held[-1].row + held[-1].rows - held[0].row if held else 0
    row_parts = range(0, rows, geometry.part) if factored else ()
    record |= {
        fields.MATRIX_FIRST_ROW: held[0].row if held else 0,
        fields.MATRIX_LOCAL_ROWS: local_rows,
        fields.MATRIX_STRIPS: len(held),
        fields.MATRIX_COL_BLOCKS: col_blocks if held else 0,
        fields.MATRIX_ROW_SUMS: tables.row_sums,
        fields.MATRIX_COL_SUMS: tables.col_sums,
        fields.MATRIX_PACKED: tables.packed,
        fields.MATRIX_ROW_BLOCKS: tables.row_blocks,
        fields.MATRIX_ROW_BLOCK_COUNT: len(row_parts),
    }
    if factored:
        axes = ((fields.ROWS_PART.value, row_parts), (fields.COLS_PART.value, range(0, cols, geometry.part)))
        for axis, firsts in axes:
            for block, first in enumerate(firsts):
                tables.parts.append([number, axis, first, block, int(leads and axis == 0 and block == 0)])
        tables.row_sums += local_rows * col_blocks
        tables.col_sums += len(held) * cols
        tables.packed += rows + cols
        tables.row_blocks += len(row_parts)
    else:
        tables.parts.append([number, fields.CLIPPING_PART.value, 0, 0, 1])
    tables.matrices.append(_row(record))


def _add_lines(tables: Tables, piece: Piece, gradient_aligned: bool, geometry: Geometry) -> None:
    """All that is held of a parameter whose matrices were added last."""
    number, stack = len(tables.matrices), len(tables.matrices) - piece.interval.row_shape[0]
    start, of_stack = piece.interval.start, tables.matrices[stack]
    record = {
        **_elements(piece, 0, piece.interval.numel),
        fields.MATRIX_KIND: fields.LINES.value,
        fields.MATRIX_COLS: geometry.block_cols,
        fields.MATRIX_START: start,
        fields.MATRIX_STACK: stack,
    }
    record |= {name: of_stack[name.value] for name in (fields.MATRIX_PARAMETER, fields.MATRIX_HYPER, fields.MATRIX_HANDED)}
    held = list(strips(start, start + record[_NUMEL], geometry.block_cols, geometry.strip_rows))
    tables.flat_tiles += _tiles(number, record, held, gradient_aligned, 1, geometry)
    tables.matrices.append(_row(record))


def _tiles(
    number: int, record: dict, held: Sequence[Strip], gradient_aligned: bool, col_blocks: int, geometry: Geometry
) -> Iterator[list[int]]:
    """The tiles of one row of the table of matrices, strip by strip."""
    cols, start = record[fields.MATRIX_COLS], record.get(fields.MATRIX_START, 0)
    addresses = (record[fields.MATRIX_WEIGHT], record[fields.MATRIX_MOMENTUM], record.get(fields.MATRIX_SECOND, 0))
    places = (*addresses, record[fields.MATRIX_GRADIENT], start, cols)
    aligned = gradient_aligned and not any(place % ALIGNMENT_BYTES for place in places)
    for number_of_strip, strip in enumerate(held):
        whole = aligned and strip.low == 0 and strip.high == cols
        for block in range(col_blocks):
            yield [number, strip.row, strip.rows, block * geometry.block_cols, strip.low, strip.high, number_of_strip, block, int(whole)]


def _row(record: dict) -> list[int]:
    row = [0] * fields.MATRIX.value
    for name, value in record.items():
        if name != _NUMEL:
            row[name.value] = value
    return row


def on_device(rows: Sequence[Sequence[int]], columns: int, device: torch.device) -> Tensor:
    """A table as the kernels read it, (rows, columns) int64."""
    return torch.tensor(rows, dtype=torch.int64).view(-1, columns).to(device)
