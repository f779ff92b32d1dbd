"""Whatever a rank holds of a parameter, its tiles hold each of its elements once and nothing else."""

from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="the fused step is written in Triton: pip install triton")


@st.composite
def held(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """(start, stop, columns, rows of a strip, columns of a block) of what is held of a matrix."""
    rows, cols = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    start, stop = sorted(draw(st.tuples(*[st.integers(0, prod((rows, cols)))] * 2)))
    return start, stop, cols, draw(st.integers(1, 4)), draw(st.sampled_from([2, 4, 16]))


@settings(deadline=None, max_examples=200)
@given(held())
def test_strips_hold_each_element_once(case: tuple[int, int, int, int, int]) -> None:
    from came.kernels.tables import strips

    start, stop, cols, strip_rows, _ = case
    found = [
        (row * cols + col, strip)
        for strip in strips(start, stop, cols, strip_rows)
        for row in range(strip.row, strip.row + strip.rows)
        for col in range(strip.low, strip.high)
    ]
    assert [element for element, _ in found] == list(range(start, stop))
    assert all(strip.rows <= strip_rows and (strip.rows == 1 or strip.high - strip.low == cols) for _, strip in found)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 2**40), st.integers(0, 10_000)), min_size=1, max_size=5))
def test_keys_made_together_are_those_made_one_by_one(cases: list[tuple[int, int, int]]) -> None:
    from came.kernels.momentum import keys
    from came.rounding import Draws

    wanted = [Draws(*case).keys() for case in cases]
    assert [tuple(word % 2**32 for word in pair) for pair in keys(*zip(*cases, strict=True)).tolist()] == wanted


def test_unaligned_addresses_are_not_called_aligned() -> None:
    import torch

    from came.interval import Interval
    from came.kernels import fields
    from came.kernels.tables import Geometry, Piece, build

    def aligned(shape: tuple[int, ...], gradient: int = 0, weights_at: int = 0) -> set[int]:
        state = {name: torch.zeros(shape[0] * shape[1]) for name in ("exp_avg", "exp_avg_sq_row", "exp_avg_sq_col")}
        state |= {name: torch.zeros(1, max(shape)) for name in ("exp_avg_sq_row", "exp_avg_sq_col", "exp_avg_res_row", "exp_avg_res_col")}
        weights = torch.zeros(prod(shape) + weights_at)[weights_at:]
        piece = Piece(Interval.whole(shape), 0, 0, weights, state, 0, 0)
        tables = build([piece], Geometry(4, 4, 4, 16, 16), [gradient])
        return {tile[fields.TILE_ALIGNED.value] for tile in tables.tiles}

    assert aligned((8, 32)) == {1}
    assert aligned((8, 33)) == aligned((8, 32), gradient=4) == aligned((8, 32), weights_at=1) == {0}


BERT = [(30_528, 128), (512, 128), (2, 128), (128, 128), (128,), (2, 128), (2,)]
RESNET = [(64, 3, 7, 7), *4 * [(64, 64, 3, 3), (256, 64, 1, 1)], (256,), (1000, 2048)]
VIT = [(768, 3, 16, 16), *12 * [(2304, 768), (768, 3072)], (768,)]


def test_stacks_of_small_matrices_are_left_to_the_rule() -> None:
    from came.kernels import dwarfed

    assert dwarfed(BERT) is None and all(dwarfed([shape]) is None for shape in BERT)
    assert dwarfed(VIT) is None, "together they are large enough, as under ZeRO"
    assert [shape for shape in RESNET if dwarfed([shape])] == [shape for shape in RESNET if len(shape) == 4]
    assert dwarfed([(100, 16, 32)]) is None and "fewer than 512 elements" in dwarfed([(100, 16, 31)])


def test_a_matrix_of_a_stack_costs_376_bytes_of_tables() -> None:
    import torch

    from came.interval import Interval
    from came.kernels import fields
    from came.kernels.tables import Geometry, Piece, build
    from came.layouts import Shard
    from came.rules.came import RULE
    from came.state import allocate, views

    weights, interval = torch.zeros(50, 1, 1), Interval.whole((50, 1, 1))
    shards = [Shard(weights, interval, 0, None)]
    (state,) = views(RULE, shards, weights, allocate(RULE, shards, weights))
    tables = build([Piece(interval, 0, 0, weights.view(-1), state, 0, 0)], Geometry(), [0])
    columns = {"matrices": fields.MATRIX, "tiles": fields.TILE, "parts": fields.PART}
    assert sum(8 * len(getattr(tables, name)) * width.value for name, width in columns.items()) == 50 * 376
