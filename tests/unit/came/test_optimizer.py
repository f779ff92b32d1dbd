"""The optimizers as ordinary members of torch.optim, without any sharding."""

import logging
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from came import CAME, AdamW, LayoutError
from came.memory import state_bytes

SHAPES = [(61, 30), (17,), (3, 30, 13), (1, 5), (), (0, 4)]


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter((torch.randn(shape, generator=generator) * 0.1).to(dtype)) for shape in SHAPES]


def set_gradients(params: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)


def test_importing_came_costs_nothing() -> None:
    code = "import came, sys; assert 'torch' not in sys.modules; came.CAME; assert 'torch' in sys.modules; assert 'deepspeed' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("optimizer", [CAME, AdamW])
def test_a_step_leaves_the_gradients_as_they_were(optimizer) -> None:
    params = parameters()
    set_gradients(params, 1)
    before = [param.grad.clone() for param in params]
    optimizer(params).step()
    for param, grad in zip(params, before, strict=True):
        assert torch.equal(param.grad, grad)


@pytest.mark.parametrize("optimizer", [CAME, AdamW])
def test_state_is_float32_and_updates_are_made_in_the_dtype_of_the_parameters(optimizer) -> None:
    params = parameters(torch.bfloat16)
    set_gradients(params, 1)
    before = [param.detach().clone() for param in params]
    adam = optimizer(params, lr=0.1)
    adam.step()
    assert {value.dtype for state in adam.state.values() for value in state.values()} == {torch.float32}
    assert all(not torch.equal(param, old) for param, old in zip(params, before, strict=True) if param.numel())


def test_state_has_the_authors_names_and_shapes() -> None:
    params = parameters()
    set_gradients(params, 1)
    came = CAME(params)
    came.step()
    stack = {name: tuple(value.shape) for name, value in came.state[params[2]].items()}
    assert stack == {
        "step": (),
        "exp_avg": (3, 30, 13),
        "exp_avg_sq_row": (3, 30),
        "exp_avg_sq_col": (3, 13),
        "exp_avg_res_row": (3, 30),
        "exp_avg_res_col": (3, 13),
    }
    assert {name: tuple(value.shape) for name, value in came.state[params[1]].items()} == {
        "step": (),
        "exp_avg": (17,),
        "exp_avg_sq": (17,),
    }


@pytest.mark.parametrize("optimizer", [CAME, AdamW])
def test_predicted_state_bytes_are_those_of_the_state(optimizer) -> None:
    params = parameters()
    set_gradients(params, 1)
    made = optimizer(params)
    made.step()
    assert state_bytes(made.rule, [SHAPES], world_size=1, stage=0) == [made.state_bytes()]


def test_came_needs_about_half_of_adamws_state_on_a_transformer() -> None:
    block = [(1024, 1024)] * 4 + [(4096, 1024), (1024, 4096)] + [(1024,)] * 9 + [(4096,)]
    shapes = [[(30528, 1024), (512, 1024)] + block * 24]
    for world_size, stage in [(1, 0), (4, 1), (4, 3)]:
        came, adamw = (max(state_bytes(kind.rule, shapes, world_size, stage)) for kind in (CAME, AdamW))
        assert came / adamw < 0.51


def test_a_parameter_without_gradient_is_left_alone() -> None:
    params = parameters()
    set_gradients(params, 1)
    params[0].grad = None
    before = params[0].detach().clone()
    came = CAME(params)
    came.step()
    assert torch.equal(params[0], before) and params[0] not in came.state


def test_a_closure_is_called_with_gradients_and_its_loss_returned() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    came = CAME([weight])

    def closure():
        came.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert came.step(closure) == 4.0
    assert not torch.equal(weight, torch.ones(2, 2))


def test_update_rms_is_that_of_all_directions_before_the_learning_rate() -> None:
    from came.observation import UpdateStatistics

    params = parameters()
    set_gradients(params, 1)
    before = [param.detach().clone() for param in params]
    came = CAME(params, lr=0.5)
    came.update_statistics = UpdateStatistics()
    came.step()
    moved = torch.cat([(old - param.detach()).flatten() / 0.5 for old, param in zip(before, params, strict=True)])
    assert came.statistics()["update_rms"] == pytest.approx(float(moved.square().mean().sqrt()), rel=1e-5)


@pytest.mark.parametrize("optimizer", [CAME, AdamW])
def test_loading_a_state_keeps_it_float32_and_goes_on_to_the_bit(optimizer) -> None:
    """torch casts loaded state to the dtype of the parameters: in bfloat16 an average with decay 0.9999 never moves again."""
    params, others = parameters(torch.bfloat16), parameters(torch.bfloat16)
    first, second = optimizer(params), optimizer(others)
    set_gradients(params, 1)
    first.step()
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        for mine, theirs in zip(others, params, strict=True):
            mine.copy_(theirs)
    for made, values in ((first, params), (second, others)):
        set_gradients(values, 2)
        made.step()
    assert all(torch.equal(left, right) for left, right in zip(params, others, strict=True))
    for left, right in zip(params, others, strict=True):
        assert first.state[left].keys() == second.state[right].keys()
        for name, value in first.state[left].items():
            assert value.dtype == second.state[right][name].dtype == torch.float32 and torch.equal(value, second.state[right][name])


def test_the_layout_is_logged_at_the_first_step(caplog) -> None:
    params = parameters()
    set_gradients(params, 1)
    with caplog.at_level(logging.INFO, logger="came"):
        CAME(params).step()
    assert caplog.messages == ["CAME: unsharded, 3 of 5 parameters factored"]


def test_a_flat_tensor_in_place_of_matrices_is_an_error() -> None:
    params = parameters()
    came = CAME(params)
    flat = nn.Parameter(torch.cat([param.detach().flatten() for param in params]))
    flat.grad = torch.zeros_like(flat)
    came.param_groups[0]["params"] = [flat]
    with pytest.raises(LayoutError, match="matrices would be treated as vectors"):
        came.step()


def test_sparse_gradients_are_refused() -> None:
    embedding = nn.Embedding(5, 3, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse gradients are not supported"):
        CAME(embedding.parameters()).step()


@pytest.mark.parametrize(
    ("optimizer", "hyper", "message"),
    [
        (CAME, {"lr": -1.0}, "lr=-1.0 is not valid"),
        (CAME, {"betas": (0.9, 0.999, 1.0)}, "beta3=1.0 is not valid"),
        (CAME, {"eps": (0.0, 1e-16)}, "eps1=0.0 is not valid"),
        (CAME, {"clip_threshold": 0.0}, "clip_threshold=0.0 is not valid"),
        (AdamW, {"weight_decay": -0.1}, "weight_decay=-0.1 is not valid"),
        (AdamW, {"eps": 0.0}, "eps=0.0 is not valid"),
    ],
)
def test_a_hyper_parameter_out_of_range_is_named(optimizer, hyper: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimizer(parameters(), **hyper)


class Asked(TorchDispatchMode):
    """Counts the values that the host asks the device for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket.__name__ in ("_local_scalar_dense", "item", "is_nonzero", "equal")
        return function(*args, **(kwargs or {}))


def test_statistics_ask_the_device_for_nothing_before_they_are_read() -> None:
    from came.observation import UpdateStatistics

    params = parameters()
    came = CAME(params)
    counts = []
    for statistics in (None, None, UpdateStatistics()):  # the first step also locates the parameters
        set_gradients(params, 1)
        came.update_statistics = statistics
        with Asked() as asked:
            came.step()
        counts.append(asked.count)
    assert counts[1] == counts[2]
    with Asked() as asked:
        assert came.statistics().keys() == {"update_rms", "clip_share", "confidence_mean", "confidence_std"}
    assert asked.count  # the watch is awake
