"""AdamW by torch's fused kernels: one tensor at a time or many together, it is the rule in PyTorch."""

import pytest
import torch
from torch import nn

from came import AdamW
from came.observation import UpdateStatistics
from came.rules import adamw

SHAPES = [(61, 30), (17,), (3, 30, 13), (), (0, 4), (5, 1)]
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float32)
STEPS = 6


class Run:
    """Two groups, of several dtypes, one parameter that does not lie row-major, one frozen and one that has its first gradient late."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        drawn = [torch.randn(shape, generator=generator).to(dtype) for dtype in DTYPES for shape in SHAPES]
        self.params = [nn.Parameter(values) for values in (*drawn, torch.randn(6, 5, generator=generator).t())]
        self.params[1].requires_grad_(False)
        half = len(self.params) // 2
        groups = [{"params": self.params[:half], "betas": (0.5, 0.8)}, {"params": self.params[half:], "weight_decay": 0.0}]
        self.optimizer, self._taken, self.rms = AdamW(groups, lr=1e-3, weight_decay=0.1), 0, []

    def step(self, steps: int = STEPS, observe: bool = True) -> None:
        for _ in range(steps):
            self._taken += 1
            generator = torch.Generator().manual_seed(self._taken)
            for index, param in enumerate(self.params):
                grad = torch.randn(param.shape, generator=generator).to(param.dtype)
                param.grad = grad if param.requires_grad and (index != 3 or self._taken > 2) else None
            self.optimizer.update_statistics = UpdateStatistics() if observe else None
            self.optimizer.step()
            self.rms.append(self.optimizer.statistics()["update_rms"])

    def tensors(self) -> list[torch.Tensor]:
        state = self.optimizer.state
        return [param.detach() for param in self.params] + [value for param in self.params for value in state[param].values()]


def equal(left: Run, right: Run) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(left.tensors(), right.tensors(), strict=True))


@pytest.mark.parametrize("elements", [1, 2000, 2**26])
def test_together_or_one_by_one_is_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch, elements: int) -> None:
    alone, together = Run(), Run()
    alone.step()
    launches = []
    kernels = torch._fused_adamw_
    monkeypatch.setattr(adamw, "_TOGETHER_DEVICES", ("cpu",))
    monkeypatch.setattr(adamw, "_TOGETHER_ELEMENTS", elements)

    def counted(tensors: list[torch.Tensor], *rest, **options) -> None:
        launches.append(len(tensors))
        kernels(tensors, *rest, **options)

    monkeypatch.setattr(torch, "_fused_adamw_", counted)
    together.step()
    assert equal(together, alone)
    assert together.rms == pytest.approx(alone.rms, rel=1e-6)
    assert (max(launches) > 3) == (elements == 2**26)


def test_observing_changes_nothing() -> None:
    plain, observed = Run(), Run()
    plain.step(observe=False)
    observed.step(observe=True)
    assert equal(plain, observed)


def test_a_run_may_change_between_the_kernels_and_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch has no kernel, the same within rounding, from any step on and back."""
    runs = {order: Run() for order in ("kernels", "rule", "rule last", "kernels last")}
    for order, run in runs.items():
        for half in range(2):
            by_rule = order == "rule" or (order == "rule last" and half == 1) or (order == "kernels last" and half == 0)
            with monkeypatch.context() as patched:
                patched.setattr(adamw, "_FUSED_DEVICES", () if by_rule else ("cpu",))
                run.step(STEPS // 2)
    for run in runs.values():
        assert run.rms == pytest.approx(runs["rule"].rms, rel=1e-6)
        for mine, theirs in zip(run.tensors(), runs["rule"].tensors(), strict=True):
            tolerance = {torch.float32: 1e-6, torch.float64: 1e-13, torch.bfloat16: 2**-7}[mine.dtype]
            torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)
    assert not equal(runs["kernels"], runs["rule"])  # it was another computation
