"""Which gradient norms the spike guard refuses."""

import json
import math
import random

import pytest

from pretrain.config.compose import compose
from pretrain.errors import UserError
from pretrain.spikes import FEWEST, LEAST_DEVIATION, WINDOW, SpikeGuard


def noise(count: int, deviation: float, seed: int = 0) -> list[float]:
    """Log-normal norms around 3."""
    generator = random.Random(seed)
    return [3.0 * math.exp(generator.gauss(0, deviation)) for _ in range(count)]


def fed(sigma: float, norms: list[float]) -> SpikeGuard:
    guard = SpikeGuard(sigma, [])
    for norm in norms:
        guard.accept(norm)
    return guard


def test_a_spike_is_refused_and_ordinary_noise_is_not() -> None:
    guard = fed(6.0, noise(WINDOW, 0.3))
    assert not any(guard.refuses(norm) for norm in noise(10_000, 0.3, seed=1))
    assert guard.refuses(3.0 * math.exp(0.3 * 8)) and guard.refuses(1e30)
    assert not guard.refuses(1e-30)  # small gradients do no harm


def test_the_threshold_is_sigma_standard_deviations_of_the_logarithm() -> None:
    guard = fed(2.0, [math.e, math.e**3] * 20)  # logarithms 1 and 3: mean 2
    deviation = math.sqrt(40 / 39)
    assert guard.distance(math.exp(2 + 1.5 * deviation)) == pytest.approx(1.5)
    assert not guard.refuses(math.exp(2 + 1.999 * deviation)) and guard.refuses(math.exp(2 + 2.001 * deviation))


def test_nothing_is_refused_before_there_is_enough_to_judge_by() -> None:
    guard = fed(1.0, noise(FEWEST - 1, 0.1))
    assert not guard.refuses(1e30) and guard.distance(1e30) == 0
    guard.accept(3.0)
    assert guard.refuses(1e30)


def test_norms_that_never_varied_are_taken_to_vary_a_little() -> None:
    guard = fed(6.0, [2.0] * WINDOW)
    assert not guard.refuses(2.0 * math.exp(5.9 * LEAST_DEVIATION)) and guard.refuses(2.0 * math.exp(6.1 * LEAST_DEVIATION))


def test_what_is_older_than_the_window_is_forgotten() -> None:
    guard = fed(6.0, [1e6] * WINDOW + [1.0] * WINDOW)
    assert guard.recent == [1.0] * WINDOW and guard.refuses(2.0)


def test_a_zero_gradient_does_not_blind_it() -> None:
    guard = fed(6.0, noise(WINDOW, 0.1) + [0.0] * 5)
    assert 0.0 not in guard.recent and guard.refuses(30.0) and not guard.refuses(0.0)


def test_it_goes_on_from_a_checkpoint_to_the_bit() -> None:
    norms = noise(500, 0.4)
    whole = fed(2.5, norms)
    half = fed(2.5, norms[:250])
    restored = SpikeGuard(2.5, json.loads(json.dumps(half.recent)))
    for norm in norms[250:]:
        restored.accept(norm)
    assert [whole.distance(norm) for norm in norms] == [restored.distance(norm) for norm in norms]


def test_the_list_it_is_given_is_kept_up_to_date() -> None:
    recent: list[float] = []
    SpikeGuard(6.0, recent).accept(1.5)
    assert recent == [1.5]


@pytest.mark.parametrize("value", ["0", "1", "6.5"])
def test_settings_that_make_sense(value: str) -> None:
    assert compose([f"train.spike_sigma={value}"]).train.spike_sigma == float(value)


@pytest.mark.parametrize("value", ["-1", "0.5", "inf", "nan"])
def test_settings_that_make_none(value: str) -> None:
    with pytest.raises(UserError, match=f"train.spike_sigma={float(value)} is not valid; give 0 for none, or 1 or more"):
        compose([f"train.spike_sigma={value}"])
