"""came/README.md: its code, run as it stands on two ranks, is the whole-tensor algorithm; its figures are computed anew."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import came
from came.memory import state_bytes
from came.optimizer import ShardedOptimizer
from came.reference import Reference, came_step
from came.verify.engines import import_deepspeed
from came.verify.probe import SHAPES, UPDATE_BOUND, WEIGHT_BOUND, Piece, Probe, assemble, clipped, draw_gradients, errors, pieces
from came.verify.ranks import run_on_ranks
from tests.distributed.test_state_bytes import bert_large

README = (Path(came.__file__).parent / "README.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
STEPS = 10
SETTINGS = {
    "plain": "optimizer = CAME(model.parameters(), lr=2e-4, weight_decay=0.01)\nfor",
    "ddp": "DistributedDataParallel(model)",
    "deepspeed": "deepspeed.initialize(",
    "fsdp2": "fully_shard(model)",
    "accelerate": "accelerator.prepare(",
    "groups": "matrices = [",
}
"""What each piece of code is found by."""


def code(mark: str) -> str:
    return next(text for text in CODE if mark in text)


def namespace(**more: Any) -> dict[str, Any]:
    rank = dist.get_rank() if dist.is_initialized() else 0
    return {"torch": torch, "CAME": came.CAME, "batches": [draw_gradients(step, 0, rank) for step in range(STEPS)], **more}


def run_all(folder: str) -> dict[str, Any]:
    return {**{setting: _run(setting) for setting in SETTINGS}, "checkpoint": _checkpoint(folder)}


def _run(setting: str) -> tuple[list[Piece], dict[str, Any]]:
    deepspeed = import_deepspeed()
    model = Probe()
    names = {param: name for name, param in model.named_parameters()}
    found = namespace(model=model, deepspeed=deepspeed)
    if setting == "accelerate":
        found["config"] = {"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": 1, "zero_allow_untested_optimizer": True}
    exec(code(SETTINGS[setting]), found)
    optimizer = found["optimizer"] if "optimizer" in found else found["engine"].optimizer
    while not isinstance(optimizer, ShardedOptimizer):
        optimizer = optimizer.optimizer
    if setting == "fsdp2":
        names = {param: name for name, param in model.named_parameters()}
    held = pieces(optimizer, names)
    hyper = {name: value for name, value in optimizer.param_groups[0].items() if name in ("lr", "weight_decay")}
    if setting in ("deepspeed", "accelerate"):
        (found["engine"] if "engine" in found else found["model"]).destroy()
    return held, hyper


def _checkpoint(folder: str) -> bool:
    model = Probe()
    found = namespace(model=model, folder=Path(folder))
    exec(code(SETTINGS["ddp"]), found)
    before = [param.detach().clone() for param in model.parameters()]
    exec(code("checkpoint.save("), found)
    return all(torch.equal(param, old) for param, old in zip(model.parameters(), before, strict=True))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_on_ranks(2, run_all, str(tmp_path_factory.mktemp("checkpoint")))


@pytest.mark.parametrize("setting", ["ddp", "deepspeed", "fsdp2", "accelerate"])
def test_the_code_for_each_setting_is_exact(ran: list[dict[str, Any]], setting: str) -> None:
    names = [name for name, _ in Probe().named_parameters()]
    found = assemble([results[setting][0] for results in ran], names)
    initial = [param.detach() for param in Probe().parameters()]
    weights = [weight.clone() for weight in initial]
    reference = Reference(weights, came_step, **ran[0][setting][1])
    for step in range(STEPS):
        mean = [(left + right) / 2 for left, right in zip(*(draw_gradients(step, 0, rank) for rank in (0, 1)), strict=True)]
        reference.step(mean if setting == "ddp" else clipped(mean, 1.0)[0])
    weight, update = errors(found, weights, initial)
    assert weight <= WEIGHT_BOUND and update <= UPDATE_BOUND


def test_the_code_for_plain_pytorch_is_exact() -> None:
    model = Probe()
    initial = [param.detach().clone() for param in model.parameters()]
    exec(code(SETTINGS["plain"]), namespace(model=model))
    weights = [weight.clone() for weight in initial]
    reference = Reference(weights, came_step, lr=2e-4, weight_decay=0.01)
    for step in range(STEPS):
        reference.step(draw_gradients(step, 0, 0))
    weight, update = errors([param.detach() for param in model.parameters()], weights, initial)
    assert weight <= WEIGHT_BOUND and update <= UPDATE_BOUND


def test_the_remaining_code_runs(ran: list[dict[str, Any]]) -> None:
    assert all(results["checkpoint"] for results in ran)
    found = namespace(model=Probe())
    exec(code("matrices = ["), found)
    assert [group["weight_decay"] for group in found["optimizer"].param_groups] == [0.01, 0.0]
    exec(code("came.memory"), found)
    assert state_bytes(came.CAME.rule, [found["shapes"]], 8, 3) == state_bytes(came.CAME.rule, [SHAPES], 8, 3)


def test_the_code_for_the_trainer_is_the_tested_one() -> None:
    line = next(line for line in code("from transformers import Trainer").splitlines() if line.startswith("Trainer("))
    tested = (Path(__file__).parent / "test_trainers.py").read_text()
    assert line.replace("train_dataset=dataset", "train_dataset=Keys(60)") in tested


def test_the_memory_table() -> None:
    momentum = came.Adafactor([torch.nn.Parameter(torch.zeros(2, 2))], beta1=0.9).rule
    rules = [came.CAME.rule, came.Adafactor.rule, momentum, came.SM3.rule, came.AdamW.rule]
    shapes = bert_large()
    cells = [state_bytes(rule, [shapes], 1, 0)[0] for rule in rules]
    cells += [max(state_bytes(rule, [shapes], 8, 1)) for rule in (came.CAME.rule, came.AdamW.rule)]
    assert f"| BERT-Large (336M) | {' | '.join(f'{num_bytes / 2**20:,.1f}' for num_bytes in cells)} |" in README
    assert state_bytes(came.LAMB.rule, [shapes], 8, 1) == state_bytes(came.AdamW.rule, [shapes], 8, 1)


def test_the_table_of_momenta() -> None:
    shapes = bert_large()
    rules = [came.CAME([torch.zeros(2, 2)], momentum_dtype=dtype).rule for dtype in ("float32", "bfloat16", "int8")]
    cells = [state_bytes(rule, [shapes], 1, 0)[0] for rule in rules] + [max(state_bytes(rules[2], [shapes], 8, 1))]
    assert f"| BERT-Large (336M) | {' | '.join(f'{num_bytes / 2**20:,.1f}' for num_bytes in cells)} |" in README
    assert cells[2] / sum(torch.Size(shape).numel() for shape in shapes) < 1.05
