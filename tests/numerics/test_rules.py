"""The rules against their references, and the references against what is known to be true of the papers' algorithms."""

import itertools

import pytest
import torch

from came import CAME, LAMB, SM3, Adafactor, AdamW
from came.reference import Reference, adafactor_step, adamw_step, came_step, lamb_step, sm3_step

SHAPES = [(61, 30), (17,), (3, 30, 13), (2, 3, 5, 7), (1, 5), (5, 1)]
HYPER = dict(lr=2e-4, weight_decay=0.01)


def draw(seed: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) * 0.1 for shape in SHAPES]


def run_reference(step, dtype: torch.dtype, steps: int = 20, **hyper) -> list[torch.Tensor]:
    params = draw(0, dtype)
    reference = Reference(params, step, **HYPER, **hyper)
    for index in range(1, steps + 1):
        reference.step(draw(index, dtype))
    return params


def run_optimizer(optimizer, steps: int = 20, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    params = [torch.nn.Parameter(value) for value in draw(0, dtype)]
    made = optimizer(params)
    for index in range(1, steps + 1):
        for param, grad in zip(params, draw(index, dtype), strict=True):
            param.grad = grad
        made.step()
    return [param.detach() for param in params]


def worst(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    return max(
        float((mine.double() - right.double()).abs().max() / right.double().abs().max()) for mine, right in zip(found, wanted, strict=True)
    )


VARIANTS = ("bias_correction", "cautious", "trust_ratio", "legacy_1d")
COMBINATIONS = [dict.fromkeys(chosen, True) for size in range(len(VARIANTS) + 1) for chosen in itertools.combinations(VARIANTS, size)]
CASES = [
    *((CAME, came_step, variants) for variants in COMBINATIONS),
    (CAME, came_step, {"clip_threshold": 0.1, "betas": (0.5, 0.9, 0.8), "eps": (1e-3, 1e-2)}),
    (AdamW, adamw_step, {}),
    (AdamW, adamw_step, {"betas": (0.5, 0.8), "eps": 1e-2}),
    (LAMB, lamb_step, {}),
    (LAMB, lamb_step, {"adapt": False, "betas": (0.5, 0.8), "eps": 1e-2}),
    (Adafactor, adafactor_step, {}),
    (Adafactor, adafactor_step, {"beta1": 0.9, "beta2_decay": -0.5}),
    (Adafactor, adafactor_step, {"scale_parameter": False, "relative_step": False, "clip_threshold": 0.1}),
    (Adafactor, adafactor_step, {"beta1": 0.5, "scale_parameter": False, "eps": (1e-2, 1e-1)}),
    (SM3, sm3_step, {}),
    (SM3, sm3_step, {"momentum": 0.0}),
]


@pytest.mark.parametrize(("optimizer", "step", "hyper"), CASES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_rule_equals_its_reference(optimizer, step, hyper: dict) -> None:
    found = run_optimizer(lambda params: optimizer(params, **HYPER, **hyper))
    assert worst(found, run_reference(step, torch.float32, **hyper)) < 3e-7
    assert worst(found, run_reference(step, torch.float64, **hyper)) < 5e-7
    exact = run_optimizer(lambda params: optimizer(params, **HYPER, **hyper), dtype=torch.float64)
    assert worst(exact, run_reference(step, torch.float64, **hyper)) < 1e-13


def test_adamw_equals_torchs() -> None:
    theirs = run_optimizer(lambda params: torch.optim.AdamW(params, foreach=False, **HYPER))
    assert worst(run_reference(adamw_step, torch.float64), theirs) < 2e-6  # torch multiplies by 1 - lr * decay in float32


def test_came_first_step_is_about_eleven_learning_rates() -> None:
    """Without bias correction: r and c hold 1 - beta2 of the square, the update is clipped to RMS 1, the momentum is a tenth of it, and
    the residual 0.9 of it weighs 1 - beta3: 0.1 / (0.9 sqrt(1e-4)) = 11.1."""
    param = torch.zeros(400, 300, dtype=torch.float64)
    came_step(param, torch.randn(400, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), {}, lr=1.0)
    assert float(param.square().mean().sqrt()) == pytest.approx(0.1 / (0.9 * 1e-4**0.5), rel=0.02)


def first_step(shape: tuple[int, ...], **variants) -> torch.Tensor:
    """How far CAME's first update moves parameters of zero, in learning rates."""
    param = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    param.grad = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    CAME([param], lr=1.0, **variants).step()
    return param.detach()


def test_bias_correction_makes_the_first_step_one_tenth() -> None:
    """The corrected momentum is the update, of RMS 1; the residual is 0.9 of it, unweighted: 1 / 0.9 = 1.1."""
    assert float(first_step((400, 300)).square().mean().sqrt()) == pytest.approx(11.1, rel=0.02)
    assert float(first_step((400, 300), bias_correction=True).square().mean().sqrt()) == pytest.approx(1.11, rel=0.02)
    assert float(first_step((400,)).square().mean().sqrt()) == pytest.approx(0.1, rel=0.02)
    torch.testing.assert_close(first_step((400,), bias_correction=True).abs(), torch.ones(400, dtype=torch.float64))


def test_bias_correction_fades() -> None:
    """With averages that forget at once there is nothing to correct."""
    plain, corrected = (
        run_optimizer(lambda params: CAME(params, betas=(0.0, 0.0, 0.0), bias_correction=on), dtype=torch.float64) for on in (False, True)
    )
    assert worst(corrected, plain) < 1e-14


def test_cautious_moves_only_what_agrees_with_the_gradient_and_that_further() -> None:
    moves = {}
    for cautious in (False, True):
        param = torch.nn.Parameter(torch.zeros(40, 30, dtype=torch.float64))
        came = CAME([param], lr=1e-3, cautious=cautious)
        for seed in (1, 2):
            before = param.detach().clone()
            param.grad = torch.randn(40, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            came.step()
        moves[cautious] = before - param.detach()
    agrees = moves[False] * param.grad > 0
    assert 0 < int(agrees.sum()) < agrees.numel()
    assert bool((moves[True][~agrees] == 0).all())
    torch.testing.assert_close(moves[True][agrees], moves[False][agrees] * agrees.numel() / (int(agrees.sum()) + 1))


def test_the_trust_ratio_makes_every_matrix_move_by_lr_times_its_norm() -> None:
    for shape in ((40, 30), (3, 5, 7)):
        param = torch.nn.Parameter(torch.full(shape, 0.7, dtype=torch.float64))
        before = param.detach().clone()
        param.grad = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        CAME([param], lr=1e-2, weight_decay=0.1, trust_ratio=True).step()
        torch.testing.assert_close((param.detach() - before).norm(), 1e-2 * before.norm())
    torch.testing.assert_close(first_step((400,), trust_ratio=True), first_step((400,)))  # vectors are left out


def test_legacy_1d_is_the_published_harness_fault() -> None:
    """Its `update = exp_avg; update.mul_(lr)`: the momentum itself is scaled, and never grows."""
    param = torch.nn.Parameter(torch.zeros(4))
    came = CAME([param], lr=1e-2, legacy_1d=True)
    for _ in range(2):
        param.grad = torch.ones(4)
        came.step()
    first, second = 0.1 * 1e-2, (0.9 * 0.1 * 1e-2 + 0.1) * 1e-2  # updates of 1: the clipping holds their RMS there
    torch.testing.assert_close(param.detach(), torch.full((4,), -(first + second)))
    torch.testing.assert_close(came.state[param]["exp_avg"], torch.full((4,), second))
    matrix = first_step((40, 30), legacy_1d=True)
    assert torch.equal(matrix, first_step((40, 30)))


def test_sm3s_accumulators_bound_adagrads() -> None:
    """Claim 1 of the paper: each element's nu is at least the sum of its squared gradients, and equal to it in a vector."""
    for shape in ((6, 5), (9,)):
        param, total = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)), torch.zeros(shape, dtype=torch.float64)
        sm3 = SM3([param])
        for seed in range(5):
            param.grad = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            total += param.grad.square()
            sm3.step()
        state = sm3.state[param]
        if len(shape) == 1:
            torch.testing.assert_close(state["accumulator"], total)
        else:
            assert bool(
                (state["accumulator_row"] >= total.amax(1) - 1e-12).all() and (state["accumulator_col"] >= total.amax(0) - 1e-12).all()
            )


def test_sm3_leaves_what_has_never_had_a_gradient() -> None:
    param = torch.nn.Parameter(torch.ones(3, 4))
    param.grad = torch.zeros(3, 4)
    param.grad[0, 0] = 1.0
    SM3([param], lr=0.1, momentum=0.0).step()
    assert int((param != 1).sum()) == 1 and param[0, 0].item() == pytest.approx(0.9)


def test_adafactors_relative_step_falls_and_scales_with_the_parameter() -> None:
    """Algorithm 6: rho_t = min(1e-2, 1/sqrt(t)), alpha_t = max(1e-3, RMS(p)) rho_t. A gradient of rank one is its own sign."""
    for size, wanted in ((2.0, 2.0 * 1e-2), (0.0, 1e-3 * 1e-2)):
        param = torch.nn.Parameter(torch.full((3, 4), size, dtype=torch.float64))
        param.grad = torch.ones(3, 4, dtype=torch.float64)
        Adafactor([param]).step()
        torch.testing.assert_close(size - param.detach(), torch.full((3, 4), wanted, dtype=torch.float64))
    late = torch.nn.Parameter(torch.full((3, 4), 2.0, dtype=torch.float64))
    adafactor = Adafactor([late], lr=1.0, scale_parameter=False)
    moves = []
    for _ in range(9):
        late.grad, before = torch.ones(3, 4, dtype=torch.float64), late[0, 0].item()
        adafactor.step()
        moves.append(before - late[0, 0].item())
    assert moves == pytest.approx([step**-0.5 for step in range(1, 10)])


def test_came_factors_are_exact_for_a_rank_one_square() -> None:
    """g^2 = a b^T is its own factorisation, so that the first update is the sign of g, scaled to RMS 1 by the clipping."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(size, 1, dtype=torch.float64, generator=generator) + 0.1 for size in (8, 6))
    state: dict = {}
    came_step(torch.zeros(8, 6, dtype=torch.float64), a @ b.T, state, lr=1.0)
    torch.testing.assert_close(state["exp_avg"], torch.full((8, 6), 0.1, dtype=torch.float64))


@pytest.mark.parametrize("optimizer", [CAME, AdamW, LAMB, Adafactor, SM3])
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
