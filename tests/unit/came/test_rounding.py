"""Random bits that depend on what is rounded alone, and rounding that is right on average."""

import itertools

import pytest
import torch
from torch import Tensor

from came.rounding import Draws, to_bfloat16

COUNT = 2**20
ONE = Draws(seed=5, step=7, parameter=3)
CHANGED = [Draws(6, 7, 3), Draws(5, 8, 3), Draws(5, 7, 4), Draws(5, 7 + 2**16, 3), Draws(7, 5, 3), Draws(5 + 2**40, 7, 3)]


def unsigned(words: Tensor) -> Tensor:
    return words.long() % 2**32


def of_bits(words: Tensor) -> Tensor:
    """How often each of 32 bits is set, (32,)."""
    return torch.stack([(words >> bit & 1).double().mean() for bit in range(32)])


def assert_even(words: Tensor, sigmas: float = 4.5) -> None:
    """Each bit is set half of the time."""
    assert float((of_bits(words) - 0.5).abs().max()) < sigmas * 0.5 / words.numel() ** 0.5


def bits_of(draws: Draws, index: int) -> int:
    """The definition, in Python's integers."""

    def mixed(word: int) -> int:
        word = (word ^ word >> 16) * 0x7FEB352D % 2**32
        word = (word ^ word >> 15) * 0x846CA68B % 2**32
        return word ^ word >> 16

    first, second = draws.keys(index // 2**32)
    return mixed(mixed(index % 2**32 ^ first) ^ second)


@pytest.mark.parametrize("start", [0, 1000, 2**31 - 3, 2**32 - 3, 5 * 2**32 - 1])
def test_they_are_those_of_the_definition(start: int) -> None:
    found = unsigned(ONE.bits(start, start + 6))
    assert found.tolist() == [bits_of(ONE, index) for index in range(start, start + 6)]


def test_a_known_value_keeps_its_value() -> None:
    """What a checkpoint's continuation and the kernels depend on."""
    assert unsigned(Draws(0, 1, 0).bits(0, 3)).tolist() == [1981591443, 3814405707, 2242890206]


def test_they_do_not_depend_on_the_cut() -> None:
    whole = ONE.bits(100, 1100)
    assert torch.equal(torch.cat([ONE.bits(100, 333), ONE.bits(333, 334), ONE.bits(334, 1100)]), whole)


def test_every_bit_is_set_half_of_the_time() -> None:
    assert_even(ONE.bits(0, COUNT))


def test_the_upper_bits_are_uniform() -> None:
    """As stochastic rounding takes them: chi-squared of the 2^10 uppermost values, within 4 sigma."""
    counts = torch.bincount(unsigned(ONE.bits(0, COUNT)) >> 22, minlength=1024).double()
    expected = COUNT / 1024
    assert abs(float(((counts - expected) ** 2 / expected).sum()) - 1023) < 4 * (2 * 1023) ** 0.5


@pytest.mark.parametrize("distance", [1, 2, 3, 128, 256, 768, 1024])
def test_neighbours_in_a_row_and_a_column_are_independent(distance: int) -> None:
    words = ONE.bits(0, COUNT + distance)
    assert_even(words[distance:] ^ words[:-distance])


@pytest.mark.parametrize("other", CHANGED, ids=str)
def test_seeds_steps_and_parameters_are_independent(other: Draws) -> None:
    assert_even(ONE.bits(0, COUNT) ^ other.bits(0, COUNT))


def test_so_are_all_steps_and_parameters_of_one_element() -> None:
    words = torch.cat([Draws(0, step, parameter).bits(12345, 12346) for step in range(1, 101) for parameter in range(50)])
    assert_even(words)
    assert_even(words[50:] ^ words[:-50])  # the next step
    assert words.unique().numel() > 0.999 * words.numel()


def test_each_bit_of_an_index_changes_half_of_the_bits() -> None:
    words = ONE.bits(0, COUNT)
    for bit in range(20):
        flipped = words[torch.arange(COUNT) ^ 1 << bit]
        assert float((of_bits(words[: 2**18] ^ flipped[: 2**18]) - 0.5).abs().max()) < 0.01


def test_no_two_parameters_draw_one_sequence_in_another_order() -> None:
    sets = [set(Draws(0, 1, parameter).bits(0, 2**14).tolist()) for parameter in range(20)]
    assert max(len(one & other) for one, other in itertools.combinations(sets, 2)) < 5  # 2^28 pairs in 2^32: 0.06 expected


# Rounding to bfloat16 ----------------------------------------------------------------------------------------------------------------


def test_values_of_bfloat16_stay_what_they_are() -> None:
    words = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16)
    finite = words[~words.isnan()]
    assert finite.isinf().sum() == 2
    for step in range(1, 4):
        found = to_bfloat16(finite.float(), Draws(0, step, 0).bits(0, finite.numel()))
        assert torch.equal(found.view(torch.int16), finite.view(torch.int16))


def test_nan_stays_nan_whatever_its_bits() -> None:
    words = torch.tensor([0x7F800001, 0x7FFFFFFF, 0x7FC00000, -1, -0x7FFFFF], dtype=torch.int32)
    assert words.view(torch.float32).isnan().all()
    assert to_bfloat16(words.view(torch.float32), torch.full_like(words, -1)).isnan().all()


def test_beyond_the_largest_lies_infinity() -> None:
    largest = float(torch.finfo(torch.bfloat16).max)
    values = torch.tensor([largest, 1.0005 * largest, -1.0005 * largest])
    up, down = torch.full((3,), -1, dtype=torch.int32), torch.zeros(3, dtype=torch.int32)
    assert to_bfloat16(values, up).tolist() == [largest, torch.inf, -torch.inf]
    assert to_bfloat16(values, down).tolist() == [largest, largest, -largest]


@pytest.mark.parametrize("value", [1.001, -1.0003, 3.14159, -1e-3, 1.2345e-20, 1e-39, 65535.9])
def test_rounding_is_unbiased_to_four_sigma_over_a_million_draws(value: float) -> None:
    exact = torch.tensor(value, dtype=torch.float32)
    found = to_bfloat16(exact.expand(10**6).contiguous(), ONE.bits(0, 10**6)).double()
    low, high = found.min(), found.max()
    share = (exact.double() - low) / (high - low)
    assert found.unique().numel() == 2 and 0 < share < 1
    assert abs(float((found.mean() - exact) / (high - low))) < 4 * float((share * (1 - share) / 10**6).sqrt())


def test_so_it_is_over_a_million_values() -> None:
    values = torch.randn(10**6, generator=torch.Generator().manual_seed(0))
    found = to_bfloat16(values, ONE.bits(0, 10**6))
    gap = 2.0 ** (values.double().abs().log2().floor() - 7)
    share = (values.double().abs() / gap) % 1
    assert bool(((found.double() - values).abs() < gap).all())
    assert abs(float((found.double() - values).sum())) < 4 * float((gap**2 * share * (1 - share)).sum().sqrt())
