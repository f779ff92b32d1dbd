"""The rules against their references, and the references against what is known to be true of the papers' algorithms."""

import pytest
import torch

from came import CAME, AdamW
from came.reference import Reference, adamw_step, came_step

SHAPES = [(61, 30), (17,), (3, 30, 13), (2, 3, 5, 7), (1, 5), (5, 1)]
HYPER = dict(lr=2e-4, weight_decay=0.01)


def draw(seed: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) * 0.1 for shape in SHAPES]


def run_reference(step, dtype: torch.dtype, steps: int = 20) -> list[torch.Tensor]:
    params = draw(0, dtype)
    reference = Reference(params, step, **HYPER)
    for index in range(1, steps + 1):
        reference.step(draw(index, dtype))
    return params


def run_optimizer(optimizer, steps: int = 20) -> list[torch.Tensor]:
    params = [torch.nn.Parameter(value) for value in draw(0)]
    made = optimizer(params)
    for index in range(1, steps + 1):
        for param, grad in zip(params, draw(index), strict=True):
            param.grad = grad
        made.step()
    return [param.detach() for param in params]


def worst(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    return max(
        float((mine.double() - right.double()).abs().max() / right.double().abs().max()) for mine, right in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize(("optimizer", "step"), [(CAME, came_step), (AdamW, adamw_step)])
def test_a_rule_equals_its_reference(optimizer, step) -> None:
    found = run_optimizer(lambda params: optimizer(params, **HYPER))
    assert worst(found, run_reference(step, torch.float32)) < 3e-7
    assert worst(found, run_reference(step, torch.float64)) < 5e-7


def test_adamw_equals_torchs() -> None:
    theirs = run_optimizer(lambda params: torch.optim.AdamW(params, foreach=False, **HYPER))
    assert worst(run_reference(adamw_step, torch.float64), theirs) < 2e-6  # torch multiplies by 1 - lr * decay in float32


def test_came_first_step_is_about_eleven_learning_rates() -> None:
    """Without bias correction: r and c hold 1 - beta2 of the square, the update is clipped to RMS 1, the momentum is a tenth of it, and
    the residual 0.9 of it weighs 1 - beta3: 0.1 / (0.9 sqrt(1e-4)) = 11.1."""
    param = torch.zeros(400, 300, dtype=torch.float64)
    came_step(param, torch.randn(400, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), {}, lr=1.0)
    assert float(param.square().mean().sqrt()) == pytest.approx(0.1 / (0.9 * 1e-4**0.5), rel=0.02)


def test_came_factors_are_exact_for_a_rank_one_square() -> None:
    """g^2 = a b^T is its own factorisation, so that the first update is the sign of g, scaled to RMS 1 by the clipping."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(size, 1, dtype=torch.float64, generator=generator) + 0.1 for size in (8, 6))
    state: dict = {}
    came_step(torch.zeros(8, 6, dtype=torch.float64), a @ b.T, state, lr=1.0)
    torch.testing.assert_close(state["exp_avg"], torch.full((8, 6), 0.1, dtype=torch.float64))


@pytest.mark.parametrize("optimizer", [CAME, AdamW])
def test_two_runs_are_bit_equal(optimizer) -> None:
    first, second = (run_optimizer(lambda params: optimizer(params, **HYPER)) for _ in range(2))
    assert all(torch.equal(left, right) for left, right in zip(first, second, strict=True))


def test_the_momentum_of_a_vector_is_not_multiplied_by_the_learning_rate() -> None:
    """A fault of the published BERT harness and of two ports: `exp_avg.mul_(lr)` in place leaves a momentum of almost nothing."""
    param = torch.nn.Parameter(torch.zeros(4))
    param.grad = torch.ones(4)
    came = CAME([param], lr=1e-4)
    came.step()
    torch.testing.assert_close(came.state[param]["exp_avg"], torch.full((4,), 0.1))


def test_the_residual_factors_are_not_the_second_moment() -> None:
    """A fault of a distributed port: after the first step both names meant one tensor."""
    param = torch.nn.Parameter(torch.zeros(3, 4))
    came = CAME([param])
    for seed in (1, 2):
        param.grad = torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)) * 1e-3
        came.step()
    state = came.state[param]
    assert state["exp_avg_res_row"].data_ptr() != state["exp_avg_sq_row"].data_ptr()
    assert bool((state["exp_avg_res_row"] > 100 * state["exp_avg_sq_row"]).all())  # residuals of updates of size 1, gradients of 1e-3


def test_clipping_bounds_the_update_before_momentum() -> None:
    param = torch.nn.Parameter(torch.zeros(50, 40))
    came = CAME([param], clip_threshold=0.25, betas=(0.0, 0.999, 0.9999))
    param.grad = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    came.step()
    assert float(came.state[param]["exp_avg"].square().mean().sqrt()) == pytest.approx(0.25, rel=1e-5)
