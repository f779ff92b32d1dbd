"""Curves in few characters: what is kept of them."""

import base64

import numpy as np
import pytest

from pretrain.report.packing import knots, pack, stretches_within


def content(packed: dict) -> bytes:
    return base64.b64decode(packed["v"])


def test_a_short_curve_is_whole() -> None:
    values = np.array([1.23456789e-9, -3.3333333, 12345.678, np.nan, 1e30, np.inf, 1e300])
    packed = pack(values, 100)
    assert (packed["n"], packed["k"]) == (7, 1)
    found = np.frombuffer(content(packed), "<f4")
    assert found[[0, 1, 2, 4]] == pytest.approx(values[[0, 1, 2, 4]], rel=1e-7)
    assert np.isnan(found[[3, 5, 6]]).all()


@pytest.mark.parametrize("count", [1000, 999, 20000])
def test_a_long_curve_keeps_the_lowest_the_highest_and_the_mean_of_each_stretch(count: int) -> None:
    values = np.random.default_rng(0).normal(size=count)
    values[count // 2] = 100.0
    values[7] = np.nan
    packed = pack(values, 50)
    length, stretches = packed["k"], len(content(packed)) // 11
    assert stretches <= 50
    low, high = np.frombuffer(content(packed)[: 8 * stretches], "<f4").reshape(2, -1).astype(np.float64)
    low_place, high_place, share = np.frombuffer(content(packed)[8 * stretches :], np.uint8).reshape(3, -1).astype(np.float64)
    scale = max(length, 256) / 256
    for place in range(stretches):
        stretch = values[place * length : (place + 1) * length]
        assert low[place] == pytest.approx(np.nanmin(stretch), rel=1e-7) and high[place] == pytest.approx(np.nanmax(stretch), rel=1e-7)
        assert abs(low_place[place] * scale - np.nanargmin(stretch)) <= scale
        assert abs(high_place[place] * scale - np.nanargmax(stretch)) <= scale
        mean = low[place] + share[place] / 255 * (high[place] - low[place])
        assert mean == pytest.approx(np.nanmean(stretch), abs=(high[place] - low[place]) / 500)
    assert high.max() == pytest.approx(100.0)


def test_a_constant_takes_no_room() -> None:
    assert pack(np.full(20000, 7.0), 10) == {"n": 20000, "c": 7}
    assert pack(np.full(3, np.nan), 10) == {"n": 3, "c": None}
    assert pack(np.array([]), 10) == {"n": 0, "c": None}


def test_the_room_is_shared_by_weight_and_kept() -> None:
    series = [(np.random.default_rng(seed).normal(size=5000), weight) for seed, weight in enumerate((1.0, 4.0, 8.0))]
    unit = stretches_within(20_000, series)
    sizes = [len(pack(values, round(weight * unit))["v"]) for values, weight in series]
    assert 15_000 < sum(sizes) <= 20_000
    assert sizes[0] < sizes[1] <= 5 * sizes[0]
    assert sizes[2] > sizes[1]


def test_an_axis_is_exact_where_its_slope_changes_seldom() -> None:
    step = np.concatenate([np.arange(1, 100), np.arange(110, 5000, 10)]).astype(float)
    found = knots(step)
    assert len(found["i"]) < 6
    assert np.interp(np.arange(len(step)), found["i"], found["v"]).tolist() == step.tolist()


def test_an_uneven_axis_is_close_and_its_ends_are_exact() -> None:
    seconds = np.cumsum(np.random.default_rng(0).uniform(0.5, 1.5, 20000))
    found = knots(seconds)
    assert len(found["i"]) == 300 and found["v"][-1] == pytest.approx(seconds[-1])
    assert np.abs(np.interp(np.arange(20000), found["i"], found["v"]) - seconds).max() < 10
    assert knots(np.full(3, np.nan)) is None
