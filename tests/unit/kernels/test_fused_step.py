"""The fused step against the published algorithm in double precision, whatever the shapes, dtypes and cuts."""

from collections.abc import Callable, Iterator

import pytest
import torch

from came.momentum import DTYPES
from tests.unit.kernels import cases
from tests.unit.kernels.ranks import Dtypes
from tests.unit.kernels.running import process_with_kernels

HALF_A_GAP = {torch.bfloat16: 2**-8, torch.float16: 2**-11}
"""What rounding to the nearest moves a value by at most, over the value."""


@pytest.fixture(scope="module")
def run() -> Iterator[Callable]:
    with process_with_kernels() as run:
        yield run


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_the_fused_step_is_the_published_one_however_it_is_cut(run: Callable, world_size: int) -> None:
    found = run(cases.errors_against_double_precision, world_size, Dtypes())
    assert found["weights"] < 2e-7 and max(found.values()) < 5e-7, found


def test_a_rank_that_holds_nothing_but_padding_takes_part(run: Callable) -> None:
    found = run(cases.errors_where_a_rank_has_padding_alone)
    assert found["weights"] < 2e-7 and max(found.values()) < 5e-7, found


@pytest.mark.parametrize("momentum", DTYPES)
def test_it_decides_as_the_others_do(run: Callable, momentum: str) -> None:
    found, keeps_momentum = run(cases.obstacles_where_a_rank_has_padding_alone, momentum)
    assert found == 4 * [(None, DTYPES[momentum])]
    assert keeps_momentum == [True, True, True, False]


@pytest.mark.parametrize("half", HALF_A_GAP)
def test_weights_and_gradients_in_half_precision_are_read_and_rounded_once(run: Callable, half: torch.dtype) -> None:
    found = run(cases.errors_against_double_precision, 1, Dtypes(weight=half, gradient=half))
    assert found.pop("weights") < HALF_A_GAP[half] * 1.001 and max(found.values()) < 5e-7, found


def test_low_precision_gradients_beside_float32_weights(run: Callable) -> None:
    found = run(cases.errors_against_double_precision, 2, Dtypes(gradient=torch.bfloat16), cases.SHAPES[:3])
    assert found["weights"] < 2e-7 and max(found.values()) < 5e-7, found


@pytest.mark.parametrize(
    ("momentum", "world_size"),
    [("bfloat16", 2), ("int8", 3), *(pytest.param("int8", ranks, marks=pytest.mark.soak) for ranks in (1, 2, 7))],
)
def test_momentum_is_encoded_as_the_rule_has_it_to_the_bit(run: Callable, momentum: str, world_size: int) -> None:
    assert run(cases.encoded_otherwise, momentum, world_size) == []


@pytest.mark.parametrize("clip_threshold", [0.05, 1.0, 1e3])
def test_a_residual_of_a_thousandth_of_the_update_does_not_cancel(run: Callable, clip_threshold: float) -> None:
    found = run(cases.residual_of_momentum_close_to_the_update, clip_threshold)
    assert max(found.values()) < 1e-4, found


def test_repeating_a_step_gives_the_same_bits_whatever_the_workspaces_held(run: Callable) -> None:
    first, second = (run(cases.bits_of_a_step, 2, poison) for poison in (float("nan"), 1e30))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
