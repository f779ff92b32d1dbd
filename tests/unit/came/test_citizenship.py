"""The optimizers behave as members of torch.optim: what torch's own accept, they accept, and what they refuse, they name."""

import copy
import io
import itertools

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from came import CAME, LAMB, SM3, Adafactor, AdamW, LayoutError
from came.rules import adamw

OPTIMIZERS = [CAME, AdamW, LAMB, Adafactor, SM3]
SHAPES = [(6, 5), (7,), (2, 3, 4)]
everyone = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def parameters(dtype: torch.dtype = torch.float32, seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype) * 0.1) for shape in SHAPES]


def train(made: torch.optim.Optimizer, steps: int = 3, first: int = 1, sign: float = 1.0) -> None:
    """Steps along gradients that depend on the step and the place of the parameter alone."""
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        for group in made.param_groups:
            for param in group["params"]:
                param.grad = sign * torch.randn(param.shape, generator=generator).to(param.dtype)
        made.step()


def values(params: list[nn.Parameter]) -> list[torch.Tensor]:
    return [param.detach().clone() for param in params]


def equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(left, right, strict=True))


@everyone
def test_a_copied_or_pickled_optimizer_goes_on_to_the_bit(optimizer) -> None:
    model = nn.ParameterList(parameters())
    made = optimizer(model.parameters(), lr=0.01)
    train(made)
    copied = copy.deepcopy((model, made))
    file = io.BytesIO()
    torch.save((model, made), file)
    file.seek(0)
    pickled = torch.load(file, weights_only=False)
    train(made, first=4)
    for others, another in (copied, pickled):
        train(another, first=4)
        assert equal(values(others), values(model))


@everyone
def test_maximize_is_minimising_the_negative(optimizer) -> None:
    up, down = parameters(), parameters()
    train(optimizer(up, maximize=True))
    train(optimizer(down), sign=-1.0)
    assert equal(values(up), values(down))


@everyone
def test_a_group_added_later_is_trained_with_its_own_settings(optimizer) -> None:
    first, later = parameters(), parameters(seed=1)
    made = optimizer(first, lr=0.01)
    train(made)
    made.add_param_group({"params": later, "lr": 0.0})
    before = values(first), values(later)
    train(made)
    assert not equal(values(first), before[0]) and equal(values(later), before[1])
    made.param_groups[1]["lr"] = 0.01
    train(made)
    assert not equal(values(later), before[1])


@everyone
def test_a_schedule_and_a_tensor_as_learning_rate_do_what_numbers_do(optimizer) -> None:
    numbers, tensors = parameters(), parameters()
    made = optimizer(numbers, lr=0.5), optimizer(tensors, lr=torch.tensor(0.5))
    schedules = [torch.optim.lr_scheduler.ExponentialLR(each, 0.5) for each in made]
    for step in range(1, 4):
        for each, schedule in zip(made, schedules, strict=True):
            train(each, steps=1, first=step)
            schedule.step()
    assert equal(values(numbers), values(tensors))
    assert float(made[0].param_groups[0]["lr"]) == float(made[1].param_groups[0]["lr"]) == 0.0625


class Readings(TorchDispatchMode):
    """Counts how often the host reads a tensor's value."""

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__()
        self.tensor, self.count = tensor, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default and args[0].data_ptr() == self.tensor.data_ptr():
            self.count += 1
        return function(*args, **(kwargs or {}))


@everyone
@pytest.mark.parametrize("together", [False, True])
def test_a_learning_rate_on_a_device_is_waited_for_once_a_step(monkeypatch: pytest.MonkeyPatch, optimizer, together: bool) -> None:
    monkeypatch.setattr(adamw, "_TOGETHER_DEVICES", ("cpu",) if together else ())
    monkeypatch.setattr(adamw, "_TOGETHER_ELEMENTS", 1)
    lr = torch.tensor(0.5)
    made = optimizer(parameters(), lr=lr)
    train(made, steps=1)
    with Readings(lr) as readings:
        train(made, steps=2, first=2)
    assert readings.count == 2


@everyone
def test_a_gradient_scaler_unscales_and_skips(optimizer) -> None:
    plain, scaled = parameters(), parameters()
    train(optimizer(plain), steps=1)
    made, scaler = optimizer(scaled), torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.zeros(()))
    for param, other in zip(scaled, plain, strict=True):
        param.grad = 1024.0 * other.grad
    scaler.step(made)
    scaler.update()
    assert equal(values(scaled), values(plain))
    scaled[0].grad[0, 0] = torch.inf
    scaler.step(made)
    assert equal(values(scaled), values(plain))


@everyone
def test_a_compiled_model_trains_as_the_model(optimizer) -> None:
    def trained(compiled: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        made = optimizer(model.parameters(), lr=0.01)
        run = torch.compile(model, backend="aot_eager") if compiled else model
        for step in range(3):
            made.zero_grad()
            run(torch.randn(5, 4, generator=torch.Generator().manual_seed(step))).square().sum().backward()
            made.step()
        return values(list(model.parameters()))

    for mine, theirs in zip(trained(True), trained(False), strict=True):
        torch.testing.assert_close(mine, theirs)


@everyone
def test_hooks_are_called_around_each_step(optimizer) -> None:
    made, called = optimizer(parameters()), []
    made.register_step_pre_hook(lambda *_: called.append("before"))
    made.register_step_post_hook(lambda *_: called.append("after"))
    train(made, steps=2)
    assert called == ["before", "after"] * 2


@everyone
def test_zero_grad_leaves_none(optimizer) -> None:
    params = parameters()
    made = optimizer(params)
    train(made, steps=1)
    made.zero_grad()
    assert all(param.grad is None for param in params)
    before = values(params)
    made.step()
    assert equal(values(params), before)


@everyone
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strided_parameters_are_updated_where_they_lie(optimizer, dtype: torch.dtype) -> None:
    """A transposed matrix and a channels-last kernel; their gradients lie otherwise still."""
    generator = torch.Generator().manual_seed(0)
    contiguous = [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in ((6, 5), (4, 3, 2, 2))]
    strided = [
        nn.Parameter(contiguous[0].detach().t().contiguous().t()),
        nn.Parameter(contiguous[1].detach().clone(memory_format=torch.channels_last)),
    ]
    assert not any(param.is_contiguous() for param in strided)
    for params in (contiguous, strided):
        train(optimizer(params, lr=0.01))
    assert equal(values(strided), values(contiguous))
    assert not any(param.is_contiguous() for param in strided)


@everyone
def test_float64_parameters_are_updated_in_float64(optimizer) -> None:
    params = parameters(torch.float64)
    made = optimizer(params)
    train(made)
    state = made.state[params[0]]
    assert {value.dtype for name, value in state.items() if name != "step"} == {torch.float64}


@everyone
def test_bfloat16_parameters_are_updated_in_float32_and_rounded(optimizer) -> None:
    low, high = parameters(torch.bfloat16), [nn.Parameter(param.detach().float()) for param in parameters(torch.bfloat16)]
    train(optimizer(low, lr=0.01), steps=1)
    for param, other in zip(high, low, strict=True):
        param.grad = other.grad.float()
    optimizer(high, lr=0.01).step()
    assert equal(values(low), [value.bfloat16() for value in values(high)])


@everyone
@pytest.mark.parametrize("steps", [0, 3])
def test_a_loaded_state_goes_on_to_the_bit_in_every_dtype(optimizer, steps: int) -> None:
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        params, others = parameters(dtype), parameters(dtype)
        made, another = optimizer(params, lr=0.01), optimizer(others, lr=1.0)
        train(made, steps)
        another.load_state_dict(copy.deepcopy(made.state_dict()))
        with torch.no_grad():
            for mine, theirs in zip(others, params, strict=True):
                mine.copy_(theirs)
        for each in (made, another):
            train(each, first=steps + 1)
        assert equal(values(others), values(params))
        assert all(
            left.keys() == right.keys()
            and all(torch.equal(left[name], right[name]) and left[name].dtype == right[name].dtype for name in left)
            for left, right in zip(made.state.values(), another.state.values(), strict=True)
        )


def test_a_state_of_before_a_setting_existed_loads_with_its_default() -> None:
    params = parameters()
    made = CAME(params)
    train(made)
    saved = made.state_dict()
    for group in saved["param_groups"]:
        del group["cautious"], group["came_group"]
    another = CAME(params)
    another.load_state_dict(saved)
    assert another.param_groups[0]["cautious"] is False
    train(another)


@everyone
def test_sparse_gradients_are_refused(optimizer) -> None:
    embedding = nn.Embedding(10, 3, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse=False"):
        optimizer(embedding.parameters()).step()


@everyone
def test_complex_parameters_are_refused(optimizer) -> None:
    with pytest.raises(ValueError, match="view_as_real"):
        optimizer([nn.Parameter(torch.zeros(3, dtype=torch.complex64))])


BAD = {
    CAME: {"lr": -1.0, "eps": (0.0, 1e-16), "clip_threshold": 0.0, "betas": (0.9, 0.999), "weight_decay": -0.1},
    AdamW: {"lr": float("nan"), "betas": (0.9, 1.0), "eps": 0.0, "weight_decay": float("inf")},
    LAMB: {"lr": -1.0, "betas": (-0.1, 0.9), "eps": -1.0, "max_grad_norm": 0.0},
    Adafactor: {"lr": -1.0, "beta2_decay": 0.5, "eps": (1e-30,), "clip_threshold": -1.0, "beta1": 1.0},
    SM3: {"lr": -1.0, "momentum": 1.0, "weight_decay": -1.0},
}
CASES = [(optimizer, name, value) for optimizer, bad in BAD.items() for name, value in bad.items()]


@pytest.mark.parametrize(("optimizer", "name", "value"), CASES)
def test_a_value_out_of_range_is_named_with_the_range(optimizer, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{name[:-1]}.*={value if not isinstance(value, tuple) else ''}.*it must be"):
        optimizer(parameters(), **{name: value})


@pytest.mark.parametrize(("optimizer", "name", "value"), CASES)
def test_so_is_one_of_a_group_alone(optimizer, name: str, value: object) -> None:
    good, other = parameters(), parameters()
    with pytest.raises(ValueError, match="it must be"):
        optimizer([{"params": good}, {"params": other, name: value}])
    made = optimizer(good)
    with pytest.raises(ValueError, match="it must be"):
        made.add_param_group({"params": other, name: value})
    assert len(made.param_groups) == 1


def test_lamb_clips_the_gradients_of_all_groups_together() -> None:
    groups = [[param] for param in parameters()], [[param] for param in parameters()]
    made, reference = (LAMB([{"params": group} for group in each], max_grad_norm=limit) for each, limit in zip(groups, (1.0, None)))
    train(made, steps=1)
    params = list(itertools.chain(*groups[1]))
    for param, other in zip(params, itertools.chain(*groups[0]), strict=True):
        param.grad = other.grad.clone()
    assert torch.nn.utils.clip_grad_norm_(params, 1.0) > 1.0
    reference.step()
    for mine, theirs in zip(values(list(itertools.chain(*groups[0]))), values(params), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


def test_lamb_does_not_clip_what_it_sees_a_part_of(monkeypatch) -> None:
    made = LAMB(parameters(), max_grad_norm=1.0)
    train(LAMB(parameters(), max_grad_norm=1.0), steps=1)  # unsharded: fine
    monkeypatch.setattr("came.layouts.whole.Whole.partitioned", True)
    with pytest.raises(LayoutError, match="gradient_clipping"):
        train(made, steps=1)


def test_a_checkpoint_says_what_it_cannot_restore_in_place() -> None:
    from came import checkpoint

    strided = nn.Parameter(torch.zeros(5, 6).t())
    with pytest.raises(LayoutError, match="not contiguous"):
        checkpoint.state_dict(CAME([strided]), {strided: "weight"})
