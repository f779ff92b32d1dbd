"""ZeRO with what real models and settings have beside plain weights; and where a rank cannot find its part, all raise together."""

import copy
from collections.abc import Callable
from typing import Any

import deepspeed
import pytest
import torch
import torch.distributed as dist

from came import LayoutError
from came.momentum import DTYPES
from came.verify.engines import deepspeed_config, import_deepspeed
from came.verify.probe import UPDATE_BOUND, WEIGHT_BOUND, Cell, Piece, Probe, assemble, draw_gradients, errors, pieces, whole_answer
from came.verify.ranks import run_on_ranks
from tests.distributed import odd

STAGES = (1, 2, 3)
SETTINGS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "cpu offload": ((1, 2, 3), {"offload_optimizer": {"device": "cpu"}}),
    "overlapped, small buckets": ((1, 2, 3), {"overlap_comm": True, "reduce_bucket_size": 500}),
    "round robin": ((1, 2), {"round_robin_gradients": True}),
    "sub-groups": ((3,), {"sub_group_size": 500}),
    "parameter offload": ((3,), {"offload_param": {"device": "cpu"}, "offload_optimizer": {"device": "cpu"}}),
}
PROBES = [(name, stage) for name, (stages, _) in SETTINGS.items() for stage in stages]
STEPS = 20


def observe(folder: str) -> dict:
    return {
        "odd": {stage: _odd(stage) for stage in STAGES},
        "init": _trained_probe(3, {}, _initialised_in_pieces),
        "settings": {(name, stage): _trained_probe(stage, SETTINGS[name][1]) for name, stage in PROBES},
        "native": {(stage, dtype): _native_checkpoint(stage, dtype, folder) for stage in STAGES for dtype in DTYPES},
        "one rank": {stage: _wrong_on_one_rank(stage) for stage in STAGES},
    }


def _start(model: torch.nn.Module, optimizer: torch.optim.Optimizer, stage: int, extra: dict[str, Any], grad_clip: float) -> Any:
    config = deepspeed_config(stage, "fp32", 1, grad_clip) | {"zero_force_ds_cpu_optimizer": False}
    config["zero_optimization"] |= copy.deepcopy(extra)
    import_deepspeed()
    return deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]


def _odd(stage: int) -> list[Piece]:
    model = odd.Odd()
    optimizer = odd.make_optimizer(model)
    names = {param: name for name, param in model.named_parameters()}
    engine = _start(model, optimizer, stage, {}, 0.0)

    def backward_and_step(loss: torch.Tensor) -> None:
        engine.backward(loss)
        engine.step()

    odd.train(engine, backward_and_step, dist.get_rank())
    found = pieces(optimizer, names)
    engine.destroy()
    return found


def _initialised_in_pieces() -> Probe:
    import_deepspeed()
    with deepspeed.zero.Init(config_dict_or_path=deepspeed_config(3, "fp32", 1, 2.0)):
        return Probe()


def _trained_probe(stage: int, extra: dict[str, Any], make: Callable[[], Probe] = Probe) -> list[Piece] | str:
    model = make()
    contender = Cell("came", stage, "fp32", 1).contender
    optimizer = contender.make(model.parameters(), **contender.hyper)
    names = {param: name for name, param in model.named_parameters()}
    engine = _start(model, optimizer, stage, extra, 2.0)
    try:
        for step in range(STEPS):
            engine.backward(engine(draw_gradients(step, 0, dist.get_rank())))
            engine.step()
        return pieces(optimizer, names)
    except LayoutError as error:
        return str(error)
    finally:
        engine.destroy()


def _native_checkpoint(stage: int, dtype: str, folder: str) -> bool:
    """Whether a run that DeepSpeed saved half-way and loaded into a fresh engine ends bit-equal to the uninterrupted one."""

    def run(first: int, load: bool) -> list[Piece]:
        model = Probe()
        contender = Cell("came", stage, "fp32", 1).contender
        optimizer = contender.make(model.parameters(), momentum_dtype=dtype, **contender.hyper)
        names = {param: name for name, param in model.named_parameters()}
        engine = _start(model, optimizer, stage, {}, 2.0)
        if load:
            engine.load_checkpoint(folder, tag=f"stage{stage}-{dtype}")
        for step in range(first, STEPS):
            engine.backward(engine(draw_gradients(step, 0, dist.get_rank())))
            engine.step()
            if not load and step == STEPS // 2 - 1:
                engine.save_checkpoint(folder, tag=f"stage{stage}-{dtype}")
        found = pieces(optimizer, names)
        engine.destroy()
        return found

    uninterrupted, resumed = run(0, load=False), run(STEPS // 2, load=True)
    return all(torch.equal(mine.values, right.values) for mine, right in zip(resumed, uninterrupted, strict=True))


def _wrong_on_one_rank(stage: int) -> str:
    """The error of each rank when one rank's master weights are not where they should be."""
    model = Probe()
    optimizer = Cell("came", stage, "fp32", 1).contender.make(model.parameters())
    engine = _start(model, optimizer, stage, {}, 0.0)
    handed = engine.optimizer.fp32_partitioned_groups_flat[0] if stage == 3 else optimizer.param_groups[0]["params"][0]
    if dist.get_rank() == 0:
        handed.data.copy_(handed.data.roll(1))
    engine.backward(engine(draw_gradients(0, 0, dist.get_rank())))
    try:
        engine.step()
    except LayoutError as error:
        return str(error)
    finally:
        engine.destroy()
    return "no error"


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return run_on_ranks(2, observe, str(tmp_path_factory.mktemp("native")))


@pytest.mark.parametrize("stage", STAGES)
def test_groups_frozen_unused_tied_and_empty_parameters(observed: list[dict], stage: int) -> None:
    odd.check([found["odd"][stage] for found in observed], 2, unused_gradient="zero")


def is_exact(stage: int, by_rank: list[list[Piece]]) -> bool:
    answer = whole_answer(Cell("came", stage, "fp32", 1), len(by_rank))
    found = assemble(by_rank, [name for name, _ in Probe().named_parameters()])
    weight, update = errors(found, answer.final, answer.initial)
    print(f"weight {weight:.1e} update {update:.1e}")
    return weight <= WEIGHT_BOUND and update <= UPDATE_BOUND


def test_a_model_that_was_never_whole(observed: list[dict]) -> None:
    """`deepspeed.zero.Init`: the optimizer is built with parameters that are already in pieces."""
    assert is_exact(3, [found["init"] for found in observed])


@pytest.mark.parametrize(("name", "stage"), PROBES)
def test_settings(observed: list[dict], name: str, stage: int) -> None:
    assert is_exact(stage, [found["settings"][name, stage] for found in observed])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stage", STAGES)
def test_deepspeeds_own_checkpoints_go_on_to_the_bit(observed: list[dict], stage: int, dtype: str) -> None:
    assert all(found["native"][stage, dtype] for found in observed)


def test_secondary_partitions_of_the_weights() -> None:
    """hpZ: the weights are also kept in pieces per node of two ranks; masters and state are cut over all four as ever."""
    assert is_exact(3, run_on_ranks(4, _trained_probe, 3, {"zero_hpz_partition_size": 2}))


@pytest.mark.parametrize("stage", STAGES)
def test_where_one_rank_cannot_find_its_part_all_raise(observed: list[dict], stage: int) -> None:
    assert "are not the model's" in observed[0]["one rank"][stage]
    assert "another rank could not locate its part" in observed[1]["one rank"][stage]
