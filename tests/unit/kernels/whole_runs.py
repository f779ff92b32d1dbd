"""What the tests of `CAME(implementation="triton")` do where the kernels run: an ordinary optimizer on whole parameters."""

import copy
import logging
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from came import CAME, kernels
from came.kernels import trial
from came.kernels.batch import Batch
from came.kernels.finalise import AVERAGE
from came.kernels.plan import Plan
from came.observation import UpdateStatistics
from tests.unit.kernels.ranks import draw, error, small
from tests.unit.kernels.running import DEVICE

SHAPES = [(12, 20), (7,), (2, 3, 4)]

CODED = [(5, 256), (300,), (12, 100)]


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    return [nn.Parameter(value.to(dtype).to(DEVICE)) for value in draw(SHAPES, 0)]


def optimizer_of(params: list[nn.Parameter], implementation: str, **hyper: Any) -> CAME:
    groups = [{"params": params[:1], "weight_decay": 0.1}, {"params": params[1:], "lr": 3e-3}]
    made = CAME(groups, lr=1e-2, implementation=implementation, **hyper)
    made._fused = kernels.FusedSteps(made, small(256 if hyper.get("momentum_dtype") == "int8" else 32))
    return made


def step(made: CAME, seed: int) -> None:
    params = [param for group in made.param_groups for param in group["params"]]
    for param, grad in zip(params, draw(SHAPES, seed), strict=True):
        param.grad = grad.to(param)
    made.step()


def differences(hyper: dict[str, Any]) -> float:
    """The largest difference of weights or state between two steps by the kernels and two by the rule."""
    left, right = parameters(), parameters()
    mine, theirs = optimizer_of(left, "triton", **hyper), optimizer_of(right, "eager", **hyper)
    for seed in (1, 2):
        step(mine, seed)
        step(theirs, seed)
    assert len(mine._fused.plans) == 1 and not theirs._fused.plans
    pairs = list(zip(left, right, strict=True))
    for one, other in zip(left, right, strict=True):
        assert mine.state[one].keys() == theirs.state[other].keys()
        pairs += [(mine.state[one][name], value) for name, value in theirs.state[other].items()]
        assert all(mine.state[one][name].shape == value.shape for name, value in theirs.state[other].items())
    return max(error(one.detach(), other.detach()) for one, other in pairs)


def codes_alike(momentum_dtype: str) -> float:
    """The share of the momentum's codes that are the same after two steps by the kernels and two by the rule. Where the values that are
    rounded differ in their last bit, a code may."""
    codes = []
    for implementation in ("triton", "eager"):
        params = [nn.Parameter(value.to(DEVICE)) for value in draw(CODED, 0)]
        made = CAME(params, implementation=implementation, momentum_dtype=momentum_dtype, seed=3)
        for seed in (1, 2):
            for param, grad in zip(params, draw(CODED, seed), strict=True):
                param.grad = grad.to(DEVICE)
            made.step()
        codes.append(torch.cat([made.state[param]["exp_avg"].flatten() for param in params]))
    return float((codes[0] == codes[1]).double().mean())


def weights(made: CAME) -> list[torch.Tensor]:
    return [param.detach().clone().cpu() for group in made.param_groups for param in group["params"]]


def statistics(momentum_dtype: str) -> dict[str, Any]:
    """What an observer sees of both, and whether the kernels' numbers are the same without one."""
    found: dict[str, Any] = {}
    for name in ("triton", "eager", "unobserved"):
        made = optimizer_of(parameters(), "eager" if name == "eager" else "triton", momentum_dtype=momentum_dtype)
        step(made, 1)
        if name != "unobserved":
            made.update_statistics = UpdateStatistics()
        step(made, 2)
        found[name] = weights(made), made.statistics()
    same = all(torch.equal(one, other) for one, other in zip(found["triton"][0], found["unobserved"][0], strict=True))
    return {"triton": found["triton"][1], "eager": found["eager"][1], "same": same}


def changing_over() -> dict[str, float]:
    """Runs that change their implementation after the first step, in place and by a checkpoint, against one that does not."""
    made = optimizer_of(parameters(), "eager")
    step(made, 1)
    saved, at = copy.deepcopy(made.state_dict()), weights(made)
    step(made, 2)
    wanted = weights(made)
    found = {}
    for start in ("triton", "eager"):
        run = optimizer_of(parameters(), start)
        step(run, 1)
        run.implementation = "triton" if start == "eager" else "eager"
        step(run, 2)
        found[f"from {start}"] = max(error(one, other) for one, other in zip(weights(run), wanted, strict=True))
    resumed = optimizer_of(parameters(), "triton")
    step(resumed, 7)  # its tables are made for state that is then replaced
    resumed.load_state_dict(saved)
    with torch.no_grad():
        for param, value in zip((param for group in resumed.param_groups for param in group["params"]), at, strict=True):
            param.copy_(value)
    step(resumed, 2)
    found["resumed"] = max(error(one, other) for one, other in zip(weights(resumed), wanted, strict=True))
    return found


def gradients_elsewhere() -> float:
    """Gradients that lie transposed, unaligned and, at every step, in another place."""
    left, right = parameters(), parameters()
    mine, theirs = optimizer_of(left, "triton"), optimizer_of(right, "eager")
    for seed in (1, 2):
        for param, other, grad in zip(left, right, draw(SHAPES, seed), strict=True):
            other.grad = grad.to(DEVICE)
            at = seed + 1
            elsewhere = torch.zeros(grad.numel() + 8, device=DEVICE)[at : at + grad.numel()].view(grad.shape)
            elsewhere.copy_(grad)
            param.grad = elsewhere if grad.dim() != 2 else grad.to(DEVICE).t().contiguous().t()
        mine.step()
        theirs.step()
    return max(error(one.detach(), other.detach()) for one, other in zip(left, right, strict=True))


def refusals() -> dict[str, str]:
    """What `implementation="triton"` says to what it cannot do, and "auto" does."""
    said = {}
    for option in ("cautious", "trust_ratio", "legacy_1d"):
        try:
            CAME(parameters(), implementation="triton", **{option: True})
        except ValueError as refusal:
            said[option] = str(refusal)
    made = optimizer_of(parameters(torch.float64), "triton")
    try:
        step(made, 1)
    except ValueError as refusal:
        said["float64"] = str(refusal)
    return said


def trials() -> dict[str, Any]:
    """Of the kernels as they are; where they do something else than the rule; and where they cannot be launched. With the messages."""
    said: list[str] = []
    logger, found = logging.getLogger("came"), {}
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger.addHandler(handler)
    device, full = torch.device(DEVICE), torch.float32
    trial.passes.cache_clear()
    found["as they are"] = [trial.passes(device, full, torch.int8)]
    small_trial = patch.object(trial, "SHAPES", ((12, 20), (2, 3, 16), (30,)))  # the interpreter takes its time
    with small_trial:
        found["as they are"] += [trial.passes(device, full, dtype, split=True) for dtype in (full, torch.bfloat16)]
    found["said of them"] = list(said)
    for name, fault in (("wrong", decay_forgotten), ("broken", failing_launch)):
        trial.passes.cache_clear()
        with small_trial, patch.object(Plan, "run", fault(Plan.run)):
            made = optimizer_of(parameters(), "auto")
            with patch.object(kernels, "chosen_for", lambda handed: True):
                step(made, 1)
            found[name] = len(made._fused.plans)
    trial.passes.cache_clear()
    with small_trial, patch.object(Batch, "finalise_residuals", failing_after_the_reduction(Batch.finalise_residuals)):
        found["broken for split ones"] = [trial.passes(device, full, full, split) for split in (False, True)]
    trial.passes.cache_clear()
    logger.removeHandler(handler)
    return found | {"said": said}


def taken_by_themselves() -> list[bool]:
    """Which of `SHAPES` "auto" takes the kernels for, where they are trusted."""
    params = parameters()
    made = optimizer_of(params, "auto")
    with patch.object(kernels, "chosen_for", lambda handed: True), patch.object(trial, "passes", lambda *_: True):
        step(made, 1)
    (taken,) = made._fused.plans
    return [id(param) in taken for param in params]


def decay_forgotten(run: Any) -> Any:
    def other(plan: Plan, members: Any, *arguments: Any) -> None:
        run(plan, [replace(member, hyper={**member.hyper, "weight_decay": 0.0}) for member in members], *arguments)

    return other


def failing_after_the_reduction(finalise: Any) -> Any:
    def other(batch: Batch, mode: int) -> None:
        if mode == AVERAGE.value:
            raise RuntimeError("no kernel image is available")
        finalise(batch, mode)

    return other


def failing_launch(run: Any) -> Any:
    def other(*_: Any) -> None:
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    return other
