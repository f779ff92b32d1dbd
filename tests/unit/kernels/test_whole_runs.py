"""CAME by its kernels is the same optimizer: the same state, the same checkpoints, the same statistics."""

from collections.abc import Callable, Iterator

import pytest

from came import CAME
from tests.unit.kernels import whole_runs
from tests.unit.kernels.running import process_with_kernels


@pytest.fixture(scope="module")
def run() -> Iterator[Callable]:
    with process_with_kernels() as run:
        yield run


@pytest.mark.parametrize("hyper", [{}, {"bias_correction": True, "maximize": True}, {"max_grad_norm": 0.5, "clip_threshold": 0.5}], ids=str)
def test_kernels_and_rule_differ_in_rounding_alone(run: Callable, hyper: dict) -> None:
    assert run(whole_runs.differences, hyper) < 5e-7


@pytest.mark.parametrize("momentum_dtype", ["float32", "int8"])
def test_an_observer_sees_what_the_rule_shows_and_changes_nothing(run: Callable, momentum_dtype: str) -> None:
    found = run(whole_runs.statistics, momentum_dtype)
    assert found["same"]
    assert found["triton"] == pytest.approx(found["eager"], rel=1e-6)
    assert found["triton"].keys() >= {"update_rms", "clip_share", "confidence_mean"}


def test_a_run_may_change_its_implementation(run: Callable) -> None:
    found = run(whole_runs.changing_over)
    assert max(found.values()) < 5e-7, found


def test_gradients_may_lie_anywhere(run: Callable) -> None:
    assert run(whole_runs.gradients_elsewhere) < 5e-7


def test_what_has_no_kernel_is_named(run: Callable) -> None:
    said = run(whole_runs.refusals)
    assert all(f"{option}=True has no kernel" in said[option] for option in ("cautious", "trust_ratio", "legacy_1d"))
    assert "torch.float64 have no kernel" in said["float64"]


@pytest.mark.parametrize("momentum_dtype", ["bfloat16", "int8"])
def test_low_precision_momentum_draws_what_the_rule_draws(run: Callable, momentum_dtype: str) -> None:
    assert run(whole_runs.codes_alike, momentum_dtype) > 0.999


def test_an_implementation_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="implementation=cuda is not valid: it must be one of auto, eager, triton"):
        CAME(whole_runs.parameters(), implementation="cuda")


def test_kernels_that_do_not_pass_their_trial_are_left_for_the_rule(run: Callable) -> None:
    found = run(whole_runs.trials)
    assert found["as they are"] == [True, True, True] and found["said of them"] == []
    assert found["wrong"] == found["broken"] == 0
    lines = [line for line in found["said"] if "did not pass their trial on" in line]
    assert len(lines) == 3 and "their update of whole parameters is off by" in lines[0]
    assert all("RuntimeError: no kernel image is available)" in line for line in lines[1:])
    assert found["broken for split ones"] == [True, False]


def test_a_stack_of_tiny_matrices_goes_by_the_rule_beside_kernels_for_the_others(run: Callable) -> None:
    assert run(whole_runs.taken_by_themselves) == [True, True, False]
