"""What the layouts promise: exact without ceremony, state where it belongs, wrong places found out."""

import logging

import deepspeed
import pytest
import torch

from came import CAME, LayoutError
from came.memory import state_bytes
from came.verify.probe import OPTIMIZERS, SHAPES, UPDATE_BOUND, WEIGHT_BOUND, Cell, draw_gradients, errors, pieces, whole_answer
from came.verify.ranks import run_on_ranks
from pretrain import distributed
from tests.distributed.probe import LinearProbe, assemble, start, train

STAGES = (0, 1, 2, 3)


def observe() -> dict:
    """On one rank: everything that the tests below look at, so that one process group serves them all."""
    return {
        "state_bytes": {(name, stage): _state_bytes(name, stage) for name in OPTIMIZERS for stage in STAGES},
        "plain": _plain_deepspeed(),
        "traffic": {stage: _traffic(stage) for stage in STAGES},
        "log": _logged_layout(),
        "moved": {stage: _weights_that_are_not_the_models(stage) for stage in (1, 2, 3)},
    }


def _state_bytes(name: str, stage: int) -> int:
    cell = Cell(name, stage, "fp32", 1, steps=1)
    engine = start(cell)
    train(engine, cell)
    found = engine.optimizer.state_bytes()
    engine.destroy()
    return found


def _plain_deepspeed() -> list:
    """CAME handed to `deepspeed.initialize` as any optimizer is; DeepSpeed itself asks for the one flag."""
    model = LinearProbe()
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": 2.0,
        "zero_optimization": {"stage": 2},
        "zero_allow_untested_optimizer": True,
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=CAME(model.parameters(), lr=2e-4, weight_decay=0.01), config=config)
    for step in range(20):
        loss = engine({"key": torch.tensor((step, 0, distributed.rank()))})["probe"]
        engine.backward(loss)
        engine.step()
    found = pieces(engine.optimizer.optimizer, {param: name for name, param in model.named_parameters()})
    engine.destroy()
    return found


def _traffic(stage: int) -> tuple[int, int]:
    cell = Cell("came", stage, "fp32", 1, steps=1)
    engine = start(cell)
    train(engine, cell)
    traffic = engine.optimizer.traffic
    engine.destroy()
    return traffic.calls, traffic.num_bytes


def _logged_layout() -> list[str]:
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("came")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    _traffic(3)
    logger.removeHandler(handler)
    return messages


def _weights_that_are_not_the_models(stage: int) -> str:
    """The error when a master slice is not where the layout says it is."""
    cell = Cell("came", stage, "fp32", 1, steps=1)
    engine = start(cell)
    handed = (
        next(iter(engine._engine.optimizer.fp32_partitioned_groups_flat)) if stage == 3 else engine.optimizer.param_groups[0]["params"][0]
    )
    handed.data.copy_(handed.data.roll(1))
    try:
        train(engine, cell)
    except LayoutError as error:
        return str(error)
    finally:
        engine.destroy()
    return "no error"


@pytest.fixture(scope="module")
def observed() -> list[dict]:
    return run_on_ranks(2, observe)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_predicted_state_bytes_are_those_of_each_rank(observed: list[dict], name: str, stage: int) -> None:
    measured = [found["state_bytes"][name, stage] for found in observed]
    assert measured == state_bytes(OPTIMIZERS[name].make.rule, [SHAPES], 2, stage)


def test_handed_to_deepspeed_came_is_exact_with_no_further_ceremony(observed: list[dict]) -> None:
    cell = Cell("came", 2, "fp32", 1)
    answer = whole_answer(cell, 2)
    weight, update = errors(assemble([found["plain"] for found in observed]), answer.final, answer.initial)
    assert weight <= WEIGHT_BOUND and update <= UPDATE_BOUND


def test_three_packed_reductions_a_step_and_only_of_what_is_split(observed: list[dict]) -> None:
    calls = {stage: observed[0]["traffic"][stage][0] for stage in STAGES}
    assert calls == {0: 0, 1: 3, 2: 3, 3: 3}
    num_bytes = {stage: observed[0]["traffic"][stage][1] for stage in STAGES}
    assert num_bytes[0] == 0 < num_bytes[1] == num_bytes[2] < num_bytes[3]


def test_the_first_step_logs_layout_and_factored_parameters(observed: list[dict]) -> None:
    matrices = sum(len(shape) >= 2 for shape in SHAPES)
    assert observed[0]["log"] == [f"CAME: ZeRO-3, {matrices} of {len(SHAPES)} parameters factored"]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_weights_in_another_place_are_an_error_not_another_algorithm(observed: list[dict], stage: int) -> None:
    assert "are not the model's" in observed[0]["moved"][stage]


def test_the_probe_cuts_rows() -> None:
    """The test of the tests: at two ranks some boundary falls inside a row of a matrix."""
    from came.layouts import zero3

    cut = [zero3.shard_of(shape, torch.Size(shape).numel(), -(-torch.Size(shape).numel() // 2), 0)[0] for shape in SHAPES]
    assert any(interval.factored and interval.stop % interval.cols for interval in cut)
    assert len(draw_gradients(0, 0, 0)) == len(SHAPES)
