"""What a run measures of itself, at every stage: memory by part, the optimizer's statistics, the time of a step by part."""

import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from statistics import fmean, pstdev

import pytest
import torch
import torch.distributed as dist

import came
from came.memory import state_bytes
from came.reference import Reference, adafactor_step, came_step
from came.verify.probe import Cell, Probe, clipped, mean_gradients
from came.verify.ranks import run_on_ranks
from pretrain import distributed
from pretrain.batch_plan import BatchPlan
from pretrain.config.schema import Config
from pretrain.engine import Engine
from pretrain.memory import memory_bytes
from pretrain.model.build import build_model
from pretrain.optim import build_optimizer, parameter_groups
from tests.distributed.probe import LinearProbe, probe_config
from tests.distributed.test_gradients import MICRO_BATCH, VOCABULARY, draw_batch, make_config

RANKS = 2
CELLS = [(stage, precision) for precision in ("fp32", "bf16") for stage in (0, 1, 2, 3) if stage or precision == "fp32"]
HELD = ("weights_bytes", "masters_bytes", "grads_bytes", "optimizer_bytes", "communication_bytes")
OPTIMIZERS = {
    # So that some updates are clipped and some are not.
    "came": (came.CAME, came_step, {"betas": (0.9, 0.9, 0.99), "clip_threshold": 1.69, "weight_decay": 0.01}),
    "came corrected": (came.CAME, came_step, {"betas": (0.9, 0.9, 0.99), "bias_correction": True, "weight_decay": 0.01}),
    "adafactor": (came.Adafactor, adafactor_step, {"beta2_decay": -0.3, "relative_step": False, "scale_parameter": False}),
    "adamw": (came.AdamW, None, {}),
}
STEPS = 4


def config_of(stage: int, precision: str) -> Config:
    """The model of test_gradients, but so large that its parts make up the memory, and not what else there is."""
    config = make_config("bert", stage)
    config.model = replace(config.model, hidden_size=128, num_heads=4)
    config.train.precision = precision
    config.zero.extra = {"reduce_bucket_size": 300_000} | ({"stage3_param_persistence_threshold": 1000} if stage == 3 else {})
    return config


def measure_memory(stage: int, precision: str) -> dict:
    """What tensors there are when the gradients of a second step are there, that were not there before the model was made, beside what is
    said of the parts."""
    config = config_of(stage, precision)
    window = [draw_batch("bert", index) for index in range(2)]
    earlier = tensors_alive()  # held, so that no other tensor gets their place in memory
    model = build_model(config, VOCABULARY)
    engine = Engine(model, build_optimizer(config.optimizer, model), config, BatchPlan(2 * MICRO_BATCH * RANKS, MICRO_BATCH, RANKS))
    before = memory_bytes(engine)
    engine.accumulate(window)
    engine.step(1e-4)
    engine.accumulate(window)
    allocated = min(map(bytes_behind, looks(3))) - bytes_behind(earlier)
    assert engine.step(1e-4).applied
    after = memory_bytes(engine)
    by_rank = distributed.over_ranks(after)
    engine.destroy()
    return {"allocated": allocated, "before": before, "after": after, "by rank": by_rank}


def looks(times: int) -> Iterator[list[torch.Tensor]]:
    """`tensors_alive`, several times: a thread of gloo lets go of a bucket some moments after what it was reduced to is there."""
    for _ in range(times):
        yield tensors_alive()
        distributed.barrier()


def tensors_alive() -> list[torch.Tensor]:
    """Every tensor that anything in this process holds, found without knowing by whom: all are objects of Python's garbage collector, but
    for gradients that nobody has looked at."""
    gc.collect()
    found = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor) and thing.device.type == "cpu"]
    return found + [tensor.grad for tensor in found if tensor.is_leaf and tensor.grad is not None]


def bytes_behind(tensors: list[torch.Tensor]) -> int:
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def measure_statistics(name: str, stage: int, precision: str) -> dict[str, float]:
    """Of the last of some steps of the linear probe."""
    make, _, hyper = OPTIMIZERS[name]
    model = LinearProbe()
    cell = Cell("came", stage, precision, 1)
    engine = Engine(model, make(model.parameters(), lr=1e-4, **hyper), *probe_config(cell, distributed.world_size()))
    for step in range(STEPS):
        engine.accumulate([{"key": torch.tensor((step, 0, distributed.rank()))}])
        engine.step(1e-4, observe_updates=step == STEPS - 1)
    found = engine.optimizer.statistics()
    engine.destroy()
    return found


def measure_time(stage: int) -> dict:
    """The parts of one step, and what the host's clock says of it; then a step that is not timed."""
    config = config_of(stage, "fp32")
    model = build_model(config, VOCABULARY)
    engine = Engine(model, build_optimizer(config.optimizer, model), config, BatchPlan(2 * MICRO_BATCH * RANKS, MICRO_BATCH, RANKS))
    window = [draw_batch("bert", index) for index in range(2)]
    plain = dist.all_reduce
    begun = time.perf_counter()
    with engine.timed(True) as timeline:
        patched = dist.all_reduce is not plain
        with timeline("data"):
            time.perf_counter()
        engine.accumulate(window)
        engine.step(1e-4)
    wall = time.perf_counter() - begun
    with engine.timed(False):
        untouched = dist.all_reduce is plain
        engine.accumulate(window)
        engine.step(1e-4)
    engine.destroy()
    return {"parts": timeline.seconds(), "wall": wall, "patched": patched, "untouched": untouched}


def measure(memory: bool) -> dict:
    statistics = {
        (name, *cell): measure_statistics(name, *cell) for name in OPTIMIZERS for cell in CELLS if name == "came" or cell[1] == "fp32"
    }
    if not memory:
        return {"statistics": statistics}
    return {
        "statistics": statistics,
        "memory": {cell: measure_memory(*cell) for cell in CELLS},
        "time": {stage: measure_time(stage) for stage in (0, 1, 2, 3)},
    }


@pytest.fixture(scope="module")
def found() -> list[dict]:
    return run_on_ranks(RANKS, measure, True)


@pytest.fixture(scope="module")
def alone() -> dict:
    return run_on_ranks(1, measure, False)[0]


# Memory -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"stage{cell[0]}-{cell[1]}")
def test_memory_by_part_is_what_was_allocated(found: list[dict], cell: tuple) -> None:
    for rank in range(RANKS):
        memory = found[rank]["memory"][cell]
        parts, before = memory["after"], memory["before"]
        assert sum(parts[name] for name in HELD) == pytest.approx(memory["allocated"], rel=1e-3)
        assert parts["peak_bytes"] == sum(parts[name] for name in HELD) + parts["process_bytes"]
        assert before["grads_bytes"] == before["optimizer_bytes"] == 0 < before["weights_bytes"] <= parts["weights_bytes"]
        assert {name: values[rank] for name, values in memory["by rank"].items()} == parts


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"stage{cell[0]}-{cell[1]}")
def test_each_kind_of_state_is_counted_and_their_sum_is_the_predicted(found: list[dict], cell: tuple) -> None:
    config = config_of(*cell)
    model = build_model(config, VOCABULARY)
    shapes = [[tuple(param.shape) for param in group["params"]] for group in parameter_groups(model.parameters(), 0.0)]
    rule = build_optimizer(config.optimizer, model).rule
    parts = [found[rank]["memory"][cell]["after"] for rank in range(RANKS)]
    assert [of_rank["optimizer_bytes"] for of_rank in parts] == state_bytes(rule, shapes, RANKS, cell[0])
    for of_rank in parts:
        kinds = {name: value for name, value in of_rank.items() if name.startswith("optimizer_") and name != "optimizer_bytes"}
        assert list(kinds) == [f"optimizer_{kind}_bytes" for kind in ("step", "exp_avg", "exp_avg_sq", "exp_avg_res")]
        assert sum(kinds.values()) == of_rank["optimizer_bytes"]
        assert kinds["optimizer_exp_avg_bytes"] > 0.9 * of_rank["optimizer_bytes"]  # all else is rows and columns


# The optimizer's statistics ---------------------------------------------------------------------------------------------------------


@lru_cache
def whole_statistics(name: str, precision: str, world_size: int) -> dict[str, float]:
    """Of the whole-tensor algorithm on the same gradients, in float64, by the definitions."""
    _, algorithm, hyper = OPTIMIZERS[name]
    masters = [param.detach().clone() for param in Probe().parameters()]
    masters = [(master.bfloat16() if precision == "bf16" else master).double() for master in masters]
    whole = Reference(masters, algorithm, lr=1e-4, **hyper)
    for gradients in mean_gradients(precision, 1, STEPS, world_size):
        gradients = [gradient.double() for gradient in clipped(gradients, 2.0)[0]]
        before = [master.clone() for master in masters]
        whole.step(gradients)
    moved = torch.cat([(old - new).flatten() / 1e-4 for old, new in zip(before, masters, strict=True)])
    found = {"update_rms": float(moved.square().mean().sqrt()), "clip_share": clip_share(whole, gradients)}
    return found | (confidences(whole) if name.startswith("came") else {})


def clip_share(whole: Reference, gradients: Sequence[torch.Tensor]) -> float:
    bias = correction(whole, 1)
    moments = [average(state, "exp_avg_sq") / bias for state in whole.states]
    rms = [float((gradient / moment.sqrt()).square().mean().sqrt()) for gradient, moment in zip(gradients, moments, strict=True)]
    threshold = whole.hyper.get("clip_threshold", 1.0)
    assert all(abs(value - threshold) > 1e-4 for value in rms), "too near the threshold to say"
    assert 0 < sum(value > threshold for value in rms) < len(rms)
    return fmean(value > threshold for value in rms)


def confidences(whole: Reference) -> dict[str, float]:
    instabilities = [average(state, "exp_avg_res") / correction(whole, 2) for state in whole.states if "exp_avg_res_row" in state]
    matrices = [matrix for stack in instabilities for matrix in stack.reshape(-1, *stack.shape[-2:])]
    found = [float(1 / matrix.mean().sqrt()) / correction(whole, 0) for matrix in matrices]
    return {"confidence_mean": fmean(found), "confidence_std": pstdev(found)}


def correction(whole: Reference, beta: int) -> float:
    return 1 - whole.hyper["betas"][beta] ** STEPS if whole.hyper.get("bias_correction") else 1.0


def average(state: dict, name: str) -> torch.Tensor:
    if name in state:
        return state[name]
    row, col = state[f"{name}_row"], state[f"{name}_col"]
    return row.unsqueeze(-1) * col.unsqueeze(-2) / row.mean(-1, keepdim=True).unsqueeze(-1)


@pytest.mark.parametrize("world_size", [1, RANKS])
@pytest.mark.parametrize("name", ["came", "came corrected", "adafactor"])
def test_statistics_are_those_of_the_whole_tensors(found: list[dict], alone: dict, name: str, world_size: int) -> None:
    for results in [alone] if world_size == 1 else found:
        cells = [cell for cell in results["statistics"] if cell[0] == name]
        assert len(cells) >= 4
        for cell in cells:
            assert results["statistics"][cell] == pytest.approx(whole_statistics(name, cell[2], world_size), rel=1e-5), cell


def test_what_an_optimizer_does_not_have_is_left_out(found: list[dict]) -> None:
    for stage in (0, 1, 2, 3):
        assert list(found[0]["statistics"]["adamw", stage, "fp32"]) == ["update_rms"]
        assert list(found[0]["statistics"]["adafactor", stage, "fp32"]) == ["update_rms", "clip_share"]


# Time -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_step_s_parts_are_the_step(found: list[dict], stage: int) -> None:
    for of_rank in found:
        measured = of_rank["time"][stage]
        parts = measured["parts"]
        assert set(parts) == {"data", "forward", "backward", "communication", "optimizer", "other"}
        assert all(seconds > 0 for seconds in parts.values())
        assert 0.9 * measured["wall"] < sum(parts.values()) < measured["wall"]
        assert measured["patched"] and measured["untouched"]
