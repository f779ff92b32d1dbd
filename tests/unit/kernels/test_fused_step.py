"""The fused step against the published algorithm in double precision, whatever the shapes, dtypes and cuts."""

from collections.abc import Callable, Iterator

import pytest
import torch

from tests.unit.kernels import cases
from tests.unit.kernels.ranks import Dtypes
from tests.unit.kernels.running import process_with_kernels


@pytest.fixture(scope="module")
def run() -> Iterator[Callable]:
    with process_with_kernels() as run:
        yield run


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_the_fused_step_is_the_published_one_however_it_is_cut(run: Callable, world_size: int) -> None:
    found = run(cases.errors_against_double_precision, world_size, Dtypes())
    assert max(found.values()) < 1e-6 and found["weights"] < 2e-7, found


def test_repeating_a_step_gives_the_same_bits_whatever_the_workspaces_held(run: Callable) -> None:
    first, second = (run(cases.bits_after, 2, poison) for poison in (float("nan"), 1e30))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
