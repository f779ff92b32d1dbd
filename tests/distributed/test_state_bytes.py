"""Bytes of optimizer state, predicted from shapes: those of every rank, to the byte, at every stage and number of ranks."""

from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import torch
import torch.distributed as dist

import came
from came.memory import FSDP2, state_bytes
from came.optimizer import ShardedOptimizer
from came.verify.engines import deepspeed_config, import_deepspeed
from came.verify.probe import SHAPES, Probe, draw_gradients
from came.verify.ranks import run_on_ranks

OPTIMIZERS: dict[str, Callable[[Any], ShardedOptimizer]] = {
    "came": came.CAME,
    "came, bfloat16 momentum": lambda groups: came.CAME(groups, momentum_dtype="bfloat16"),
    "came, int8 momentum": lambda groups: came.CAME(groups, momentum_dtype="int8"),
    "adamw": came.AdamW,
    "lamb": came.LAMB,
    "adafactor": came.Adafactor,
    "adafactor with momentum": lambda groups: came.Adafactor(groups, beta1=0.9),
    "sm3": came.SM3,
    "sm3 without momentum": lambda groups: came.SM3(groups, momentum=0.0),
}
STAGES = (0, 1, 2, 3, FSDP2)
GROUPS = [SHAPES[:4], SHAPES[4:]]


def measure() -> dict[tuple[str, int | str], int]:
    return {(name, stage): _measure(make, stage) for name, make in OPTIMIZERS.items() for stage in STAGES}


def _measure(make: Callable[[Any], ShardedOptimizer], stage: int | str) -> int:
    model = Probe()
    gradients = draw_gradients(0, 0, dist.get_rank())
    if stage == FSDP2:
        torch.distributed.fsdp.fully_shard(model)
    params = list(model.parameters())
    optimizer = make([{"params": params[:4]}, {"params": params[4:]}])
    if stage == FSDP2:
        model(gradients).backward()
        optimizer.step()
        return optimizer.state_bytes()
    config = deepspeed_config(int(stage), "fp32", 1, 0.0)
    engine, *_ = import_deepspeed().initialize(model=model, optimizer=optimizer, config=config)
    engine.backward(engine(gradients))
    engine.step()
    found = optimizer.state_bytes()
    engine.destroy()
    return found


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_predicted_bytes_are_those_of_every_rank(world_size: int) -> None:
    by_rank = run_on_ranks(world_size, measure)
    for name, make in OPTIMIZERS.items():
        rule = make([torch.nn.Parameter(torch.zeros(2, 2))]).rule
        for stage in STAGES:
            measured = [found[name, stage] for found in by_rank]
            assert measured == state_bytes(rule, GROUPS, world_size, stage), (name, stage)


def bert_large() -> list[tuple[int, ...]]:
    from transformers import BertConfig, BertForPreTraining

    config = BertConfig(vocab_size=30528, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
    with torch.device("meta"):
        return [tuple(param.shape) for param in BertForPreTraining(config).parameters()]


@pytest.mark.parametrize(("world_size", "bound"), [(1, 0.51), (8, 0.52), (64, 0.60)])  # the ranks do not divide the factors
@pytest.mark.parametrize("stage", STAGES)
def test_came_needs_half_of_adamws_state_on_bert_large(stage: int | str, world_size: int, bound: float) -> None:
    shapes = bert_large()
    assert 335e6 < sum(map(prod, shapes)) < 337e6
    theirs, ours = (state_bytes(optimizer.rule, [shapes], world_size, stage) for optimizer in (came.AdamW, came.CAME))
    assert max(ours) <= bound * max(theirs)


@pytest.mark.parametrize("name", ["came", "adafactor", "sm3"])
def test_ranks_that_hold_nothing_of_a_matrix_keep_no_factors_of_it(name: str) -> None:
    """Three rows over four ranks; a small matrix wholly on the first of two slices of a flat buffer."""
    rule = OPTIMIZERS[name]([torch.nn.Parameter(torch.zeros(2, 2))]).rule
    *holders, idle = state_bytes(rule, [[(3, 1000)]], 4, FSDP2)
    assert min(holders) > 4000 and idle <= 4  # at most a step count
    alone = [state_bytes(rule, [[shape]], 1, 1)[0] for shape in ((10, 100), (1000,))]
    assert state_bytes(rule, [[(10, 100), (1000,)]], 2, 1) == alone
