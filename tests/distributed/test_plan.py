"""What is planned for more ranks than there are is what an engine really holds and sends, at every stage on 1, 2 and 4 ranks."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist

from came.optimizer import ShardedOptimizer
from came.verify.ranks import run_on_ranks
from pretrain import distributed
from pretrain.batch_plan import BatchPlan
from pretrain.config.schema import AdafactorConfig, AdamWConfig, CameConfig, Config, LambConfig, Sm3Config
from pretrain.engine import Engine, _communication_backend
from pretrain.memory import memory_bytes
from pretrain.model.build import build_model
from pretrain.optim import build_optimizer
from pretrain.plan.communication import communication
from pretrain.plan.deepspeed import zero_of
from pretrain.plan.gathering import gathering
from pretrain.plan.memory import held
from pretrain.plan.sizes import model_without_storage, sizes_of
from pretrain.timeline import _COLLECTIVES
from tests.distributed.test_gradients import MICRO_BATCH, VOCABULARY, draw_batch, make_config

MICRO_STEPS = 2
OPTIMIZERS = {
    "came": CameConfig(implementation="eager"),  # as on a CPU; of the kernels see test_fused.py
    "came, momentum in 8 bits": CameConfig(momentum_dtype="int8", implementation="eager"),
    "came, cautious, with trust ratio": CameConfig(cautious=True, trust_ratio=True),
    "adamw": AdamWConfig(),
    "lamb": LambConfig(),
    "adafactor": AdafactorConfig(),
    "sm3": Sm3Config(),
}
Cell = tuple[str, int, str, str, str]
"""Family, stage, precision, optimizer, and what is special."""
SPECIAL: dict[str, dict[str, Any]] = {
    "": {},
    "offload": {"offload": "cpu"},
    "weights let go early": {"extra": {"stage3_max_reuse_distance": 60_000, "stage3_prefetch_bucket_size": 0}},
    "weights let go late": {"extra": {"stage3_max_reuse_distance": 200_000, "stage3_prefetch_bucket_size": 0}},
}
CELLS: list[Cell] = [
    *((family, 0, "fp32", "came", "") for family in ("bert", "gpt2")),
    *((family, stage, precision, "came", "") for family in ("bert", "gpt2") for stage in (1, 2, 3) for precision in ("fp32", "bf16")),
    *(("bert", stage, "bf16", "came", "offload") for stage in (1, 2, 3)),
    *(("gpt2", 3, "bf16", "came", special) for special in ("weights let go early", "weights let go late")),
    *(("gpt2", stage, "bf16", name, "") for stage in (1, 3) for name in OPTIMIZERS if name != "came"),
    ("gpt2", 0, "bf16", "came", ""),
]


def config_of(family: str, stage: int, precision: str, optimizer: str, special: str) -> Config:
    """Several buckets and sub-groups, parameters that ranks share and parameters too small to be cut."""
    config = make_config(family, stage)
    config.model = replace(config.model, hidden_size=72, num_heads=4)
    config.optimizer = OPTIMIZERS[optimizer]
    config.train.precision = precision
    config.train.grad_accum_dtype = "model" if stage == 0 else "fp32"
    config.zero.offload = SPECIAL[special].get("offload", "none")
    extra = {"reduce_bucket_size": 100_000} | SPECIAL[special].get("extra", {})
    config.zero.extra = extra | ({"stage3_param_persistence_threshold": 1000, "sub_group_size": 30_000} if stage == 3 else {})
    return config


# What happens -----------------------------------------------------------------------------------------------------------------------


@contextmanager
def counted(payload: Counter[str]) -> Iterator[None]:
    """Adds up the bytes that the collectives of tensors within the block combine or gather, by name; without sums of one or two numbers."""
    depth = 0

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            largest = max((thing for thing in (*args, *kwargs.values()) if torch.is_tensor(thing)), key=torch.numel)
            if depth == 0 and not (name == "all_reduce" and largest.numel() <= 2):
                payload[name] += largest.numel() * largest.element_size()
            depth += 1  # DeepSpeed's call torch's
            try:
                return function(*args, **kwargs)
            finally:
                depth -= 1

        return call

    with ExitStack() as patches:
        for owner in (dist, _communication_backend()):
            for name in _COLLECTIVES:
                if function := getattr(owner, name, None):
                    patches.enter_context(patch.object(owner, name, counting(name, function)))
        yield


@contextmanager
def traffic_added_up(optimizer: ShardedOptimizer, found: Counter[str]) -> Iterator[None]:
    """What each call of `step` within the block counts of its own reductions."""
    step = type(optimizer).step

    def adding(self: ShardedOptimizer, closure: Any = None) -> Any:
        result = step(self, closure)
        found.update(calls=self.traffic.calls, bytes=self.traffic.num_bytes)
        return result

    with patch.object(type(optimizer), "step", adding):
        yield


def measure_cell(*cell: Any) -> dict[str, Any]:
    """Of the second step: in the first DeepSpeed learns the order of the modules, and the optimizer asks whether all ranks agree."""
    config, ranks = config_of(*cell), distributed.world_size()
    window = [draw_batch(cell[0], index) for index in range(MICRO_STEPS)]
    model = build_model(config, VOCABULARY)
    plan = BatchPlan(MICRO_STEPS * MICRO_BATCH * ranks, MICRO_BATCH, ranks)
    engine = Engine(model, build_optimizer(config.optimizer, model), config, plan)
    engine.accumulate(window)
    engine.step(1e-4)
    passes, update, traffic = Counter(), Counter(), Counter()
    with counted(passes):
        engine.accumulate(window)
    with counted(update), traffic_added_up(engine.optimizer, traffic):
        engine.step(1e-4)
    found = {"memory": memory_bytes(engine), "passes": passes, "update": update, "traffic": traffic}
    engine.destroy()
    return found


def measure() -> dict[Cell, dict[str, Any]]:
    cells = CELLS if distributed.world_size() > 1 else [cell for cell in CELLS if cell[0] == "bert"]
    return {cell: measure_cell(*cell) for cell in cells}


@pytest.fixture(scope="module", params=[1, 2, 4], ids=lambda ranks: f"{ranks}-ranks")
def by_rank(request: pytest.FixtureRequest) -> list[dict[Cell, dict[str, Any]]]:
    return run_on_ranks(request.param, measure)


# What is planned --------------------------------------------------------------------------------------------------------------------


@lru_cache
def planned(cell: Cell, ranks: int) -> tuple[list[dict[str, int]], dict[str, int]]:
    """Bytes held by each rank, and sent by one of them."""
    config = config_of(*cell)
    model = model_without_storage(config, VOCABULARY)
    sizes, zero, optimizer = sizes_of(model, VOCABULARY), zero_of(config), build_optimizer(config.optimizer, model)
    gathered = gathering(sizes, zero, recompute=False) if zero.stage == 3 and ranks > 1 else None
    sent = communication(sizes, optimizer, zero, ranks, MICRO_STEPS, gathered)
    return [asdict(held(sizes, optimizer.rule, zero, ranks, rank)) for rank in range(ranks)], asdict(sent)


def test_memory_by_part_is_the_planned_to_the_byte(by_rank: list[dict[Cell, dict[str, Any]]]) -> None:
    parts = ("weights_bytes", "masters_bytes", "grads_bytes", "optimizer_bytes", "communication_bytes")
    for rank, measured in enumerate(by_rank):
        for cell, found in measured.items():
            expected = planned(cell, len(by_rank))[0][rank]
            assert {name: found["memory"][name] for name in parts} == {name: expected[name] for name in parts}, (cell, rank)


def test_the_optimizer_reduces_what_is_planned(by_rank: list[dict[Cell, dict[str, Any]]]) -> None:
    for measured in by_rank:
        for cell, found in measured.items():
            expected, traffic = planned(cell, len(by_rank))[1], found["traffic"]
            assert (traffic["calls"], traffic["bytes"]) == (expected["optimizer_calls"], expected["optimizer_payload_bytes"]), cell
            assert (traffic["calls"] > 0) == (len(by_rank) > 1 and cell[1] > 0 and cell[3] != "adamw"), cell


def test_gradients_and_weights_travel_as_planned(by_rank: list[dict[Cell, dict[str, Any]]]) -> None:
    for cell, found in by_rank[0].items():
        expected, passes, update = planned(cell, len(by_rank))[1], found["passes"], found["update"]
        assert passes["all_reduce"] + passes["reduce_scatter_tensor"] == expected["gradients_payload_bytes"], cell
        assert (passes["reduce_scatter_tensor"] > 0) == (cell[1] == 3), cell
        gathered = passes["all_gather_into_tensor"] + update["all_gather_into_tensor"]
        assert gathered == expected["weights_payload_bytes"], cell
        assert set(passes | update) <= {"all_reduce", "reduce_scatter_tensor", "all_gather_into_tensor"}, cell
