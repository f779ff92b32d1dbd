"""A step that is bad on one rank: it is skipped on all, the reason is named, and everything stays as it was."""

import math
from dataclasses import dataclass
from unittest import mock

import pytest
import torch
from torch import Tensor

from came.verify.probe import SHAPES, Cell, Probe, draw_gradients
from came.verify.ranks import run_on_ranks
from pretrain import distributed
from pretrain.engine import Engine, StepResult
from pretrain.model.objective import PretrainingModel
from tests.distributed.probe import LinearProbe, OffloadedCell, local_masters, start

CELLS = [Cell("came", stage, "fp32", 2) for stage in (0, 1, 2, 3)] + [Cell("came", stage, "bf16", 2) for stage in (1, 2, 3)]
CELLS += [OffloadedCell("came", stage, precision, 2) for precision in ("fp32", "bf16") for stage in (1, 2, 3)]
CELLS += [Cell("came", stage, "fp16", 2) for stage in (1, 2, 3)] + [OffloadedCell("came", stage, "fp16", 2) for stage in (1, 3)]
POISONED = 4
"""Index of the parameter whose gradient is poisoned, on rank 1 alone, in the first micro-step of two, as every fault is."""
HIGHEST_NORM = 200.0
"""Of the gradient; beyond it a step is refused. Good steps have some 30."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a step, and what its result has to say of it."""

    reason: str | None
    bad_parameter: str | None = None
    added_to_the_loss: float = 0.0
    added_to_a_gradient: float = 0.0
    """To the first element of one parameter's; the loss knows nothing of it."""
    gradient_factor: float = 1.0


FAULTS = {
    "none": Fault(None),
    "infinite gradient": Fault("gradient_not_finite", f"model.w{POISONED}", added_to_a_gradient=math.inf),
    "NaN gradient": Fault("gradient_not_finite", f"model.w{POISONED}", added_to_a_gradient=math.nan),
    "infinite loss": Fault("loss_not_finite", "model.w0", added_to_the_loss=math.inf),
    "NaN loss": Fault("loss_not_finite", "model.w0", added_to_the_loss=math.nan),
    "spike": Fault("spike", gradient_factor=100.0),
}
NAMES = list(FAULTS)


class PoisonedGradient(torch.autograd.Function):
    """Identity, whose gradient has something added to its first element."""

    @staticmethod
    def forward(ctx, values: Tensor, addition: float) -> Tensor:
        ctx.addition = addition
        return values.view_as(values)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.clone()
        gradient.view(-1)[0] += ctx.addition
        return gradient, None


class FaultyModel(Probe):
    def forward(self, gradients: list[Tensor], fault: Fault) -> Tensor:
        weights = [getattr(self, f"w{index}") for index in range(len(SHAPES))]
        weights[POISONED] = PoisonedGradient.apply(weights[POISONED], fault.added_to_a_gradient)
        products = [(weight * (gradient * fault.gradient_factor).to(weight)).float().sum() for weight, gradient in zip(weights, gradients)]
        return torch.stack(products).sum() + fault.added_to_the_loss


class FaultyProbe(LinearProbe):
    def __init__(self) -> None:
        PretrainingModel.__init__(self, FaultyModel())

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        step, micro_step, rank, fault = batch["key"].tolist()
        here = rank == 1 and micro_step == 0
        return {"probe": self.model(draw_gradients(step, micro_step, rank), FAULTS[NAMES[fault if here else 0]])}


def run_step(engine: Engine, cell: Cell, index: int, fault: str = "none", guarded: bool = False) -> StepResult:
    keys = [(index, micro_step, distributed.rank(), NAMES.index(fault)) for micro_step in range(cell.accumulation)]
    engine.accumulate([{"key": torch.tensor(key)} for key in keys])
    return engine.step(cell.contender.hyper["lr"], refuse=(lambda norm: norm > HIGHEST_NORM) if guarded else None)


def begin(cell: Cell) -> Engine:
    if cell.precision != "fp16":
        return start(cell, FaultyProbe)
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    with mock.patch.object(CPU_Accelerator, "is_fp16_supported", lambda self: True):  # slow there, but the same arithmetic
        engine = start(cell, FaultyProbe)
    engine.set_loss_scale(256.0)
    return engine


def weights_and_state(engine: Engine) -> dict[str, Tensor]:
    found = {f"{piece.name}[{piece.start}]": piece.values for piece in local_masters(engine)}
    for place in engine.optimizer.places():
        for index, views in enumerate(engine.optimizer.state_views(place)):
            found |= {f"{index} {name}": value.clone() for name, value in views.items()}
    for name, param in engine.model.named_parameters():
        held = param.detach()
        if hasattr(param, "ds_tensor"):  # ZeRO-3: a share, with padding at the end of the last one
            share = param.partition_numel()
            held = param.ds_tensor[: max(0, min(share, param.ds_numel - distributed.rank() * share))]
        found[f"{name} of the model"] = held.clone()
    return found


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def steps_with_bad_ones(cell: Cell) -> dict:
    engine = begin(cell)
    good = [run_step(engine, cell, 0, guarded=True)]
    before = weights_and_state(engine)
    bad = {}
    for index, fault in enumerate(NAMES[1:], start=1):
        scale = engine.loss_scale
        result = run_step(engine, cell, index, fault, guarded=True)
        untouched = equal(before, weights_and_state(engine))
        bad[fault] = {"result": result, "untouched": untouched, "lowered_the_loss_scale": engine.loss_scale < scale}
    good.append(run_step(engine, cell, len(NAMES), guarded=True))
    final = weights_and_state(engine)
    engine.destroy()

    engine = begin(cell)  # the same without the bad steps, and without the guard
    undisturbed = [run_step(engine, cell, index) for index in (0, len(NAMES))]
    recovered = equal(final, weights_and_state(engine))
    engine.destroy()
    return {"bad": bad, "good": good, "undisturbed": undisturbed, "recovered": recovered}


def all_cells() -> list[dict]:
    return [steps_with_bad_ones(cell) for cell in CELLS]


@pytest.fixture(scope="module")
def found() -> list[list[dict]]:
    return run_on_ranks(2, all_cells)


@pytest.mark.parametrize("fault", NAMES[1:])
@pytest.mark.parametrize("index", range(len(CELLS)), ids=map(str, CELLS))
def test_a_bad_step_is_skipped_on_every_rank(found: list[list[dict]], index: int, fault: str) -> None:
    for rank in (0, 1):
        bad = found[rank][index]["bad"][fault]
        result = bad["result"]
        assert not result.applied and bad["untouched"]
        assert (result.reason, result.bad_parameter) == (FAULTS[fault].reason, FAULTS[fault].bad_parameter)
        assert math.isfinite(result.grad_norm) == (fault == "spike")


@pytest.mark.parametrize("index", [index for index, cell in enumerate(CELLS) if cell.precision == "fp16"])
def test_the_loss_scale_is_searched_for_where_it_may_be_to_blame(found: list[list[dict]], index: int) -> None:
    bad = found[0][index]["bad"]
    assert {name for name, step in bad.items() if step["result"].loss_scale_search} == {"infinite gradient", "NaN gradient"}
    # DeepSpeed tolerates a first overflow and lowers the scale at the second.
    assert {name for name, step in bad.items() if step["lowered_the_loss_scale"]} == {"NaN gradient"}


@pytest.mark.parametrize("index", range(len(CELLS)), ids=map(str, CELLS))
def test_the_next_step_is_as_if_they_had_never_been(found: list[list[dict]], index: int) -> None:
    for rank in (0, 1):
        assert all(result.applied for result in found[rank][index]["good"])
        assert found[rank][index]["recovered"]


@pytest.mark.parametrize("index", range(len(CELLS)), ids=map(str, CELLS))
def test_the_guard_is_asked_about_the_norm_that_deepspeed_reports(found: list[list[dict]], index: int) -> None:
    """And it is the same number on both ranks, so that they decide alike."""
    zero, one = (found[rank][index] for rank in (0, 1))
    assert [result.grad_norm for result in zero["good"]] == [result.grad_norm for result in one["good"]]
    assert zero["bad"]["spike"]["result"].grad_norm == one["bad"]["spike"]["result"].grad_norm > HIGHEST_NORM
    for guarded, reported in zip(zero["good"], zero["undisturbed"], strict=True):
        assert guarded.grad_norm == pytest.approx(reported.grad_norm, rel=1e-6)
