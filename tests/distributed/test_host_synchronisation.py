"""Within an accumulation window the host never asks the device for a value, so that on a GPU it runs ahead of it to the last micro-step."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from came.verify.ranks import run_on_ranks
from pretrain.batch_plan import BatchPlan
from pretrain.config.schema import CameConfig, Config, RunConfig, TrainConfig, ZeroConfig
from pretrain.engine import Engine
from pretrain.model.build import build_model
from pretrain.optim import build_optimizer
from tests.distributed.test_gradients import MICRO_BATCH, MODELS, VOCABULARY, draw_batch

CELLS = [
    (family, stage, precision)
    for family in MODELS
    for stage in (0, 1, 2, 3)
    for precision in ("fp32", "bf16")
    if stage or precision == "fp32"
]
ASKING = {"_local_scalar_dense", "item", "nonzero", "masked_select", "unique", "unique_dim", "_unique2", "equal", "is_nonzero"}
"""Operators whose result the host waits for."""


class Asked(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in ASKING:
            self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def asked_in_a_window(family: str, stage: int, precision: str) -> list[str]:
    model_config, objective = MODELS[family]
    train = TrainConfig(global_batch_size=3 * MICRO_BATCH, micro_batch_size=MICRO_BATCH, num_steps=1, precision=precision)
    config = Config(
        run=RunConfig(name="asked"),
        train=train,
        model=model_config,
        objective=objective,
        optimizer=CameConfig(),
        zero=ZeroConfig(stage=stage),
    )
    model = build_model(config, VOCABULARY)
    engine = Engine(model, build_optimizer(config.optimizer, model), config, BatchPlan(3 * MICRO_BATCH, MICRO_BATCH, 1))
    window = [draw_batch(family, index) for index in range(3)]
    engine.accumulate(window)  # in its first micro-steps ZeRO-3 compares the order of modules over the ranks
    engine.step(1e-4)
    counts = engine._global_counts(window)
    engine._global_counts = lambda window: counts  # it is made of tensors of the host, before the first micro-step
    with Asked() as asked, engine.timed(True):  # a step that is logged
        engine.accumulate(window)
        found = list(asked.names)
        float(torch.zeros(()))
    assert len(asked.names) == len(found) + 1  # the watch is awake
    engine.step(1e-4)
    engine.destroy()
    return found


def all_cells() -> dict:
    return {cell: asked_in_a_window(*cell) for cell in CELLS}


@pytest.fixture(scope="module")
def found() -> dict:
    return run_on_ranks(1, all_cells)[0]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: "-".join(map(str, cell)))
def test_nothing_is_asked_of_the_device(found: dict, cell: tuple) -> None:
    assert found[cell] == []
