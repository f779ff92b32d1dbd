"""The references, and through them the rules, against implementations that others wrote: 50 steps in float64, where two that agree in
every equation agree to 1e-12, and in float32, to its rounding.

Where another implementation differs from its paper, the test keeps to settings in which that does not show, and says so:

- torch.optim.Adafactor decays by `lr * weight_decay` (`param.mul_(1 - lr * weight_decay)` in `_single_tensor_adafactor`) where transformers
  and came decay by the whole step size, parameter scale included; the paper has no weight decay. Compared without it.
- transformers.optimization.Adafactor multiplies by the learning rate before it averages (`update.mul_(lr)` above `exp_avg.mul_(beta1)` in
  `Adafactor.step`), so that a falling learning rate leaves old, larger steps in the momentum. Compared at a fixed one.
- pytorch_optimizer.Lamb corrects the bias of the step and not of the moments: it divides the learning rate by 1 - beta1^t, outside the
  trust ratio, so that the first step is ten times lr (`return step_size if adam_debias else step_size / bias_correction1` in
  `BaseOptimizer.apply_adam_debias`). It adds eps to the update's norm and clamps the weights' norm to 10 (`trust_ratio = weight_norm /
  (p_norm + eps)`, `weight_norm = torch.linalg.norm(p).clamp_(min=0, max=self.clamp)` in `Lamb.update`). Algorithm 2 corrects m and v, and
  does neither of the others. With `adam_debias=True`, without decay and eps, the trust ratio cancels every factor of the update, bias
  corrections included, so that there they agree; the corrections and the decay are tested by Algorithm 2's own first step below.
- pytorch_optimizer.SM3 has one accumulator for each axis of a tensor of any rank. Compared for vectors and matrices.
"""

from collections.abc import Callable
from typing import Any

import came_pytorch
import pytest
import pytorch_optimizer
import torch
from transformers.optimization import Adafactor as TransformersAdafactor

import came
from came import reference
from came.reference import Reference

MATRICES = [(61, 30), (17,), (5, 1), (1, 5), (40, 64)]
STACKS = [*MATRICES, (3, 30, 13), (2, 3, 5, 7)]
STEPS = 50

Case = tuple[str, Callable, Callable[[list], torch.optim.Optimizer], dict[str, Any], type, list]

DECAY = dict(lr=1e-3, weight_decay=0.01)
FIXED = dict(scale_parameter=False, relative_step=False)
CASES: dict[str, tuple] = {
    "came, came-pytorch": (came.CAME, reference.came_step, DECAY, lambda params: came_pytorch.CAME(params, **DECAY), STACKS),
    "adamw, torch": (came.AdamW, reference.adamw_step, DECAY, lambda params: torch.optim.AdamW(params, foreach=False, **DECAY), STACKS),
    "adafactor, torch": (
        came.Adafactor,
        reference.adafactor_step,
        dict(lr=1e-2),
        lambda params: torch.optim.Adafactor(params, lr=1e-2, eps=(1e-30, 1e-3), foreach=False),
        STACKS,
    ),
    "adafactor, transformers, relative": (
        came.Adafactor,
        reference.adafactor_step,
        dict(lr=1e-2, weight_decay=0.01),
        lambda params: TransformersAdafactor(params, weight_decay=0.01),
        STACKS,
    ),
    "adafactor, transformers, fixed": (
        came.Adafactor,
        reference.adafactor_step,
        DECAY | FIXED,
        lambda params: TransformersAdafactor(params, **DECAY, **FIXED),
        STACKS,
    ),
    "adafactor, transformers, fixed with momentum": (
        came.Adafactor,
        reference.adafactor_step,
        DECAY | FIXED | dict(beta1=0.9),
        lambda params: TransformersAdafactor(params, beta1=0.9, **DECAY, **FIXED),
        STACKS,
    ),
    "lamb, pytorch_optimizer": (
        came.LAMB,
        reference.lamb_step,
        dict(lr=1e-2, eps=1e-30, weight_decay=0.0, adapt=True),
        lambda params: pytorch_optimizer.Lamb(params, lr=1e-2, eps=1e-30, adam_debias=True, foreach=False),
        STACKS,
    ),
    "sm3, pytorch_optimizer": (
        came.SM3,
        reference.sm3_step,
        dict(lr=1e-2),
        lambda params: pytorch_optimizer.SM3(params, lr=1e-2, momentum=0.9, foreach=False),
        MATRICES,
    ),
    "sm3 without momentum, pytorch_optimizer": (
        came.SM3,
        reference.sm3_step,
        dict(lr=1e-2, momentum=0.0),
        lambda params: pytorch_optimizer.SM3(params, lr=1e-2, foreach=False),
        MATRICES,
    ),
}


def draw(seed: int, shapes: list, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(shape, generator=generator, dtype=torch.float64) * 0.1).to(dtype) for shape in shapes]


def run(make: Callable[[list], torch.optim.Optimizer], shapes: list, dtype: torch.dtype) -> list[torch.Tensor]:
    params = [torch.nn.Parameter(value) for value in draw(0, shapes, dtype)]
    optimizer = make(params)
    with torch.no_grad():
        for step in range(1, STEPS + 1):
            for param, grad in zip(params, draw(step, shapes, dtype), strict=True):
                param.grad = grad
            optimizer.step()
    return [param.detach() for param in params]


def run_reference(step: Callable, hyper: dict[str, Any], shapes: list, dtype: torch.dtype) -> list[torch.Tensor]:
    params = draw(0, shapes, dtype)
    oracle = Reference(params, step, **hyper)
    for index in range(1, STEPS + 1):
        oracle.step(draw(index, shapes, dtype))
    return params


def worst(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    """Largest max|w - ref| / max|ref| over the parameters."""
    pairs = zip(found, wanted, strict=True)
    return max(float((mine.double() - theirs.double()).abs().max() / theirs.double().abs().max()) for mine, theirs in pairs)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_agreement_with_an_implementation_by_others(case: str, dtype: torch.dtype, bound: float) -> None:
    optimizer, step, hyper, others, shapes = CASES[case]
    theirs = run(others, shapes, dtype)
    initial = draw(0, shapes, dtype)
    assert worst(initial, theirs) > 1e-2, "they must have moved"
    assert worst(run_reference(step, hyper, shapes, dtype), theirs) < bound
    assert worst(run(lambda params: optimizer(params, **hyper), shapes, dtype), theirs) < bound


@pytest.mark.parametrize("shape", [(8, 6), (9,)])
def test_lambs_first_step_is_that_of_algorithm_2(shape: tuple[int, ...]) -> None:
    """Bias-corrected, m is g and v is g^2 after one step, so that the update is sign(g) + weight_decay * x, scaled to the norm of x."""
    x, g = draw(0, [shape, shape], torch.float64)
    update = g.sign() + 0.3 * x
    wanted = x - 0.1 * x.norm() / update.norm() * update
    param = torch.nn.Parameter(x.clone())
    param.grad = g
    came.LAMB([param], lr=0.1, weight_decay=0.3, eps=1e-20).step()
    torch.testing.assert_close(param.detach(), wanted, rtol=1e-12, atol=0)


def test_lamb_leaves_groups_without_decay_unscaled_unless_told_otherwise() -> None:
    x, g = draw(0, [(8, 6), (8, 6)], torch.float64)
    moved = {}
    for adapt in (None, True, False):
        param = torch.nn.Parameter(x.clone())
        param.grad = g
        came.LAMB([param], lr=0.1, weight_decay=0.0, eps=1e-20, adapt=adapt).step()
        moved[adapt] = x - param.detach()
    torch.testing.assert_close(moved[None], 0.1 * g.sign())
    assert torch.equal(moved[None], moved[False])
    torch.testing.assert_close(moved[True].norm(), 0.1 * x.norm())
