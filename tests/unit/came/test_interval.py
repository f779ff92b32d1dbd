"""Intervals: whatever the cuts, the pieces together are the whole."""

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from came import interval as interval_module
from came.interval import Interval

shapes = st.lists(st.integers(1, 7), min_size=2, max_size=4).map(tuple)


@st.composite
def cut_parameters(draw) -> tuple[tuple[int, ...], list[Interval]]:
    """A shape and intervals that follow each other from its first element to its last, some of them empty."""
    shape = draw(shapes)
    inner = sorted(draw(st.lists(st.integers(0, prod(shape)), max_size=5)))
    cuts = [0, *inner, prod(shape)]
    return shape, [Interval(shape, start, stop) for start, stop in zip(cuts, cuts[1:])]


@settings(deadline=None)
@given(cut_parameters())
def test_rectangles_cover_each_element_once_and_are_at_most_five(case) -> None:
    shape, intervals = case
    covered = torch.zeros(shape, dtype=torch.int).view(-1, *shape[-2:])
    for interval in intervals:
        assert len(interval.rectangles) <= 5
        assert sum(prod(rectangle.shape) for rectangle in interval.rectangles) == interval.numel
        for rectangle in interval.rectangles:
            covered[rectangle.matrices, rectangle.rows, rectangle.cols] += 1
    assert bool((covered == 1).all())


@settings(deadline=None)
@given(cut_parameters(), st.integers(1, 40))
def test_pieces_cover_the_same_elements_in_order_and_are_small(case, limit: int) -> None:
    shape, pieces = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interval_module, "CACHE_ELEMENTS", limit)
        for interval in pieces:
            assert all(piece.numel <= limit for piece in interval.cache_sized_rectangles)
            flat, whole = torch.arange(interval.numel), torch.arange(prod(shape)).view(-1, *shape[-2:])
            seen = [piece.view(flat) for piece in interval.cache_sized_rectangles]
            assert torch.equal(torch.cat([part.flatten() for part in seen]) if seen else flat[:0], flat)
            for piece, part in zip(interval.cache_sized_rectangles, seen, strict=True):
                assert torch.equal(part + interval.start, whole[piece.matrices, piece.rows, piece.cols])


@settings(deadline=None)
@given(cut_parameters(), st.integers(0, 2**31))
def test_maxima_of_the_pieces_are_the_maxima_of_the_whole(case, seed: int) -> None:
    shape, intervals = case
    whole = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    parts = [interval.row_col_max(torch.clone, whole.flatten()[interval.start : interval.stop]) for interval in intervals]
    stack = whole.view(-1, *shape[-2:])
    assert torch.equal(torch.stack([row for row, _ in parts]).amax(0), stack.amax(-1))
    assert torch.equal(torch.stack([col for _, col in parts]).amax(0), stack.amax(-2))


@settings(deadline=None)
@given(cut_parameters(), st.integers(0, 2**31))
def test_sums_of_the_pieces_add_up_to_the_sums_of_the_whole(case, seed: int) -> None:
    shape, intervals = case
    whole = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    parts = [interval.row_col_sums(torch.clone, whole.flatten()[interval.start : interval.stop]) for interval in intervals]
    stack = whole.view(-1, *shape[-2:])
    torch.testing.assert_close(sum(row for row, _ in parts), stack.sum(-1))
    torch.testing.assert_close(sum(col for _, col in parts), stack.sum(-2))


@settings(deadline=None)
@given(cut_parameters(), st.integers(0, 2**31))
def test_scaling_the_pieces_scales_the_whole(case, seed: int) -> None:
    shape, intervals = case
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randn(shape, dtype=torch.float64, generator=generator)
    row = torch.rand(intervals[0].row_shape, dtype=torch.float64, generator=generator)
    col = torch.rand(intervals[0].col_shape, dtype=torch.float64, generator=generator)
    pieces = [whole.flatten()[interval.start : interval.stop].clone() for interval in intervals]
    for interval, piece in zip(intervals, pieces, strict=True):
        interval.each(lambda values, row, col: values.mul_(row).mul_(col), piece, factors=(row, col))
    wanted = whole.view(-1, *shape[-2:]) * row.unsqueeze(-1) * col.unsqueeze(-2)
    torch.testing.assert_close(torch.cat(pieces), wanted.flatten())


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (4, 3), (0, 7)])
def test_what_is_no_interval_is_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="not an interval"):
        Interval((2, 3), start, stop)
