"""FSDP2: exact on 2 and 3 ranks, with whatever a model may have, on meshes that replicate too, and through PyTorch's own checkpoints."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from came import CAME, LayoutError, momentum
from came import checkpoint as came_checkpoint
from came.verify import matrix
from came.verify.probe import (
    FSDP2,
    OPTIMIZERS,
    UPDATE_BOUND,
    WEIGHT_BOUND,
    Cell,
    Piece,
    Probe,
    assemble,
    draw_gradients,
    errors,
    pieces,
    whole_answer,
)
from came.verify.ranks import run_on_ranks
from tests.distributed import odd

CELLS = matrix.cells(list(OPTIMIZERS), [FSDP2], ["fp32", "bf16"])
STEPS, HALF = 20, 10


@pytest.mark.parametrize("world_size", [2, 3])
def test_every_optimizer_is_exact_and_keeps_the_predicted_bytes(world_size: int) -> None:
    rows = matrix.run(CELLS, world_size)
    failures = [f"{row.cell}: {row.weight:.1e} {row.update:.1e} {row.state_bytes} {row.predicted_bytes}" for row in rows if not row.holds]
    assert len(rows) == len(CELLS) and not failures, "\n".join(failures)


# Cells that share one process group --------------------------------------------------------------------------------------------------


def observe(folder: str) -> dict:
    return {
        "odd": _odd(),
        "offload": _odd(offload_policy=CPUOffloadPolicy(pin_memory=False)),
        "traffic": _traffic(),
        "columns": _refusal(_sharded_by_columns),
        "tensor parallel": _refusal(_tensor_parallel_rows),
        "state dict": {name: _state_dict(name) for name in OPTIMIZERS},
        "saved": {name: _save(name, folder) for name in OPTIMIZERS},
    }


def _names(model: nn.Module) -> dict:
    return {param: name for name, param in model.named_parameters()}


def _odd(**options) -> list[Piece]:
    model = odd.Odd()
    fully_shard(model, **options)
    optimizer = odd.make_optimizer(model)

    def backward_and_step(loss: torch.Tensor) -> None:
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    odd.train(model, backward_and_step, dist.get_rank())
    return pieces(optimizer, _names(model))


def _sharded_probe(name: str = "came", mesh=None) -> tuple[Probe, torch.optim.Optimizer]:
    model = Probe()
    fully_shard(model, mesh=mesh)
    return model, OPTIMIZERS[name].make(model.parameters(), **OPTIMIZERS[name].hyper)


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int, grad_clip: float = 2.0) -> None:
    for step in range(first, last):
        model(draw_gradients(step, 0, dist.get_rank())).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
        optimizer.step()
        optimizer.zero_grad()


def _traffic() -> tuple[int, int]:
    model, optimizer = _sharded_probe()
    _train(model, optimizer, 0, 1)
    return optimizer.traffic.calls, optimizer.traffic.num_bytes


def _refusal(build) -> str:
    model = build()
    optimizer = CAME(model.parameters())
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    try:
        optimizer.step()
    except LayoutError as error:
        return str(error)
    return "no error"


def _sharded_by_columns() -> nn.Module:
    model = nn.Linear(6, 8, bias=False)
    fully_shard(model, shard_placement_fn=lambda param: Shard(1))
    return model


def _tensor_parallel_rows() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 8))
    return parallelize_module(model, init_device_mesh("cpu", (dist.get_world_size(),)), {"0": ColwiseParallel(), "1": RowwiseParallel()})


def _state_dict(name: str) -> dict:
    """PyTorch's own functions for sharded state: taken half-way, set into a fresh optimizer, trained on."""
    model, optimizer = _sharded_probe(name)
    _train(model, optimizer, 0, HALF)
    found: dict = {"kinds": {key: isinstance(value, DTensor) for key, value in next(iter(optimizer.state.values())).items()}}
    halfway = {key: value.detach().clone() for key, value in model.state_dict().items()}
    state = {
        full: copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=full)))
        for full in (False, True)
    }
    _train(model, optimizer, HALF, STEPS)
    found["uninterrupted"] = pieces(optimizer, _names(model))
    for full in (False, True):
        model, optimizer = _sharded_probe(name)
        model.load_state_dict(halfway)
        set_optimizer_state_dict(model, optimizer, state[full], options=StateDictOptions(full_state_dict=full))
        _train(model, optimizer, HALF, STEPS)
        found[full] = pieces(optimizer, _names(model))
    return found


def _save(name: str, folder: str) -> list[Piece]:
    """Half-way, by torch.distributed.checkpoint and by came.checkpoint; then on without interruption."""
    model, optimizer = _sharded_probe(name)
    _train(model, optimizer, 0, HALF)
    state = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}
    dcp.save(state, checkpoint_id=Path(folder, f"{name}-dcp"))
    came_checkpoint.save(optimizer, _names(model), Path(folder, f"{name}-came"))
    _train(model, optimizer, HALF, STEPS)
    return pieces(optimizer, _names(model))


def load(folder: str) -> dict:
    found = {}
    for name in OPTIMIZERS:
        model, optimizer = _sharded_probe(name)
        state = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}
        dcp.load(state, checkpoint_id=Path(folder, f"{name}-dcp"))
        model.load_state_dict(state["model"])
        set_optimizer_state_dict(model, optimizer, state["optimizer"])
        _go_on(model, optimizer)
        found[name, "dcp"] = pieces(optimizer, _names(model))

        model, optimizer = _sharded_probe(name)
        came_checkpoint.load(optimizer, _names(model), Path(folder, f"{name}-came"))
        _go_on(model, optimizer)
        found[name, "came"] = pieces(optimizer, _names(model))
    return found


def _go_on(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """With the mean gradients of two ranks, whatever the number of ranks is now."""
    for step in range(HALF, STEPS):
        gradients = [sum(pair) / 2 for pair in zip(draw_gradients(step, 0, 0), draw_gradients(step, 0, 1), strict=True)]
        model(gradients).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def observed(folder: str) -> list[dict]:
    return run_on_ranks(2, observe, folder)


@pytest.fixture(scope="module")
def loaded(folder: str, observed: list[dict]) -> dict[int, list[dict]]:
    return {world_size: run_on_ranks(world_size, load, folder) for world_size in (2, 3)}


@pytest.mark.parametrize("case", ["odd", "offload"])
def test_groups_frozen_unused_tied_and_empty_parameters(observed: list[dict], case: str) -> None:
    odd.check([found[case] for found in observed], 2, unused_gradient="none")


def test_three_packed_reductions_a_step(observed: list[dict]) -> None:
    calls, num_bytes = observed[0]["traffic"]
    assert calls == 3 and num_bytes > 0


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("columns", r"FSDP2: a parameter of shape \(8, 6\) is sharded along dimension 1"),
        ("tensor parallel", r"FSDP2: a parameter of shape \(8, 12\) is sharded along dimension 1"),
    ],
)
def test_what_is_not_supported_says_so_on_every_rank(observed: list[dict], case: str, message: str) -> None:
    for found in observed:
        assert pytest.raises(AssertionError, match=message).matches(AssertionError(found[case])), found[case]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pytorchs_state_dict_functions_restore_to_the_bit(observed: list[dict], name: str) -> None:
    for rank in (0, 1):
        found = observed[rank]["state dict"][name]
        for full in (False, True):
            for mine, right in zip(found[full], found["uninterrupted"], strict=True):
                assert torch.equal(mine.values, right.values), (full, mine.name)
    kinds = observed[0]["state dict"]["came"]["kinds"]
    assert kinds["exp_avg"] and not kinds["exp_avg_sq_row"]


@pytest.mark.parametrize("way", ["dcp", "came"])
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_checkpoint_goes_on_with_any_number_of_ranks(observed: list[dict], loaded: dict, name: str, world_size: int, way: str) -> None:
    names = [name for name, _ in Probe().named_parameters()]
    wanted = assemble([found["saved"][name] for found in observed], names)
    found = assemble([found[name, way] for found in loaded[world_size]], names)
    weight, update = errors(found, wanted, whole_answer(Cell(name, FSDP2, "fp32", 1), 2).initial)
    assert weight <= WEIGHT_BOUND and update <= UPDATE_BOUND


# Meshes of two dimensions --------------------------------------------------------------------------------------------------------------


def observe_meshes() -> dict:
    model, optimizer = _sharded_probe("came", init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")))
    _train(model, optimizer, 0, STEPS)
    return {
        "hybrid": pieces(optimizer, _names(model)),
        "hybrid in 8 bits": _hybrid_in_8_bits(),
        "strided": _refusal(_tensor_parallel_and_fsdp),
        "twice": _refusal(_sharded_twice),
    }


def _hybrid_in_8_bits() -> tuple[list[Piece], dict[str, tuple[int, ...]], dict[str, int]]:
    """Weights that both replicas must have, the shapes of the scales, and the pieces of what this rank holds."""
    model = Probe()
    fully_shard(model, mesh=init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")))
    optimizer, names = CAME(model.parameters(), lr=2e-4, momentum_dtype="int8"), _names(model)
    _train(model, optimizer, 0, 3)
    shapes = {names[param]: tuple(state["exp_avg_scale"].shape) for param, state in optimizer.state.items()}
    held = {names[shard.param]: momentum.pieces(shard.interval) for place in optimizer.places() for shard in place.shards}
    return pieces(optimizer, names), shapes, held


def _tensor_parallel_and_fsdp() -> nn.Module:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    model = nn.Sequential(nn.Linear(8, 12))
    parallelize_module(model, mesh["tp"], {"0": ColwiseParallel()})
    fully_shard(model, mesh=mesh["dp"])
    return model


def _sharded_twice() -> nn.Module:
    model = nn.Linear(8, 12, bias=False)
    model.weight = nn.Parameter(distribute_tensor(model.weight.data, init_device_mesh("cpu", (2, 2)), [Shard(0), Shard(0)]))
    return model


def test_meshes_of_two_dimensions() -> None:
    """Hybrid sharding reduces over the shard group alone and is exact; what is sharded along both dimensions is refused."""
    by_rank = run_on_ranks(4, observe_meshes)
    answer = whole_answer(Cell("came", FSDP2, "fp32", 1), 4)
    found = assemble([found["hybrid"] for found in by_rank], [name for name, _ in Probe().named_parameters()])
    weight, update = errors(found, answer.final, answer.initial)
    assert weight <= WEIGHT_BOUND and update <= UPDATE_BOUND
    assemble([found["hybrid in 8 bits"][0] for found in by_rank], [name for name, _ in Probe().named_parameters()])
    for name, shape in by_rank[0]["hybrid in 8 bits"][1].items():
        assert shape == (2, max(found["hybrid in 8 bits"][2][name] for found in by_rank))
    assert all("_StridedShard" in found["strided"] and "not supported" in found["strided"] for found in by_rank)
    assert all("sharded along 2 dimensions of the mesh" in found["twice"] for found in by_rank)
