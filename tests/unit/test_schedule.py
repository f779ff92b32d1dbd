"""Warm-up and decay, against values worked out by hand."""

import math

import pytest

from pretrain.config.schema import ScheduleConfig
from pretrain.schedule import learning_rate


def rates(kind: str, num_steps: int, peak: float = 1.0, **settings: float) -> list[float]:
    schedule = ScheduleConfig(kind=kind, **settings)
    return [learning_rate(schedule, peak, step, num_steps) for step in range(num_steps + 1)]


def test_linear_rises_to_the_peak_and_falls_to_nothing():
    expected = [0.25, 0.5, 0.75, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0.0]
    assert rates("linear", 10, warmup_ratio=0.4) == pytest.approx(expected)


def test_cosine_is_half_way_down_in_the_middle_and_ends_at_its_floor():
    curve = rates("cosine", 8, peak=2.0, warmup_ratio=0.0, min_lr_ratio=0.1)
    assert curve[0] == pytest.approx(2.0)
    assert curve[4] == pytest.approx(2.0 * (0.1 + 0.9 / 2))
    assert curve[2] == pytest.approx(2.0 * (0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2))
    assert curve[8] == pytest.approx(0.2)


def test_constant_stays_at_the_peak_after_the_warm_up():
    assert rates("constant", 5, warmup_ratio=0.4, min_lr_ratio=0.3) == pytest.approx([0.5, 1, 1, 1, 1, 1])


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 100])
def test_every_update_counts_however_short_the_run(kind: str, num_steps: int):
    assert all(0 < rate <= 1 for rate in rates(kind, num_steps, warmup_ratio=0.2)[:num_steps])


def test_linear_ends_at_the_floor():
    assert rates("linear", 7, warmup_ratio=0.2, min_lr_ratio=0.25)[-1] == pytest.approx(0.25)


def test_the_paper_s_warm_up_is_4000_of_20000_steps():
    schedule = ScheduleConfig(kind="linear", warmup_ratio=0.2)
    assert learning_rate(schedule, 2.4e-4, 0, 20000) == pytest.approx(2.4e-4 / 4000)
    assert learning_rate(schedule, 2.4e-4, 3999, 20000) == pytest.approx(2.4e-4)
    assert learning_rate(schedule, 2.4e-4, 12000, 20000) == pytest.approx(1.2e-4)
