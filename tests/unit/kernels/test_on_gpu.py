"""What only a GPU can show of the fused step: `CAME_TEST_GPU=1 python -m pytest tests/unit/kernels`, which also compiles the kernels of the
other tests. `scripts/bench_gpu` runs them."""

import pytest
import torch
from torch import nn

from came import CAME
from tests.unit.kernels.running import ON_GPU

pytestmark = pytest.mark.skipif(not ON_GPU, reason="needs a GPU: CAME_TEST_GPU=1")

SHAPES = [(700, 1024), (1024,), (3, 50, 257), (130, 4096)]


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator("cuda").manual_seed(0)
    made = [nn.Parameter(torch.randn(shape, device="cuda", generator=generator) * 0.02) for shape in SHAPES]
    for param in made:
        param.grad = torch.randn(param.shape, device="cuda", generator=generator)
    return made


def draw_gradients(params: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator("cuda").manual_seed(seed)
    for param in params:
        param.grad.copy_(torch.randn(param.shape, device="cuda", generator=generator))


def test_a_gpu_takes_the_kernels_by_itself() -> None:
    params = parameters()
    made = CAME(params)
    made.step()
    assert made._fused is not None and len(made._fused.plans) == 1


@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
def test_a_captured_step_is_the_step_to_the_bit(max_grad_norm: float | None) -> None:
    """Replays follow gradients and a learning rate that are rewritten in place."""
    results = []
    for captured in (False, True):
        params, lr = parameters(), torch.tensor(1e-3, device="cuda")
        made = CAME(params, lr=lr, weight_decay=0.1, max_grad_norm=max_grad_norm)
        step = made.step
        made.step()
        if captured:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                made.step()
            step = graph.replay
        for seed in range(1, 6):
            draw_gradients(params, seed)
            lr.fill_(1e-3 * seed)
            step()
        results.append([param.detach().clone() for param in params])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_step_waits_for_nothing() -> None:
    params = parameters()
    made = CAME(params, lr=1e-3, momentum_dtype="bfloat16", max_grad_norm=1.0)
    made.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for group in made.param_groups:
            group["lr"] = 2e-3
        for param in params:
            param.grad = param.grad.clone()  # elsewhere
        made.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_what_a_graph_cannot_repeat_is_refused() -> None:
    params = parameters()
    made = CAME(params, bias_correction=True)
    made.step()
    with pytest.raises(RuntimeError, match="need the number of the step"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        made.step()


def test_repeated_steps_are_bit_equal() -> None:
    runs = []
    for _ in range(2):
        params = parameters()
        made = CAME(params, lr=1e-3)
        for seed in range(20):
            draw_gradients(params, seed)
            made.step()
        runs.append([param.detach().clone() for param in params])
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))
