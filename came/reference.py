"""Each paper's algorithm on whole tensors, in any dtype: the oracle that the sharded rules are tested against.

Nothing here knows of intervals, ranks or DeepSpeed, and nothing in the product uses it. Read it beside the papers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]


def came_step(
    param: Tensor,
    grad: Tensor,
    state: State,
    *,
    lr: float,
    betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
    eps: tuple[float, float] = (1e-30, 1e-16),
    clip_threshold: float = 1.0,
    weight_decay: float = 0.0,
) -> None:
    """CAME, Algorithm 2 of Luo et al. (2023); a parameter of more than two dimensions is a stack of matrices."""
    beta1, beta2, beta3 = betas
    eps1, eps2 = eps

    if param.dim() >= 2:
        v = _factored_average(state, "exp_avg_sq", grad**2 + eps1, beta2)
    else:
        v = _average(state, "exp_avg_sq", grad**2 + eps1, beta2)
    u = grad / v.sqrt()
    u = u / max(1.0, float(u.pow(2).mean().sqrt()) / clip_threshold)

    m = _average(state, "exp_avg", u, beta1)

    if param.dim() >= 2:
        s = _factored_average(state, "exp_avg_res", (u - m) ** 2 + eps2, beta3)
        direction = m / s.sqrt()
    else:
        direction = m

    param.sub_(lr * (weight_decay * param + direction))


def adamw_step(
    param: Tensor,
    grad: Tensor,
    state: State,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> None:
    """AdamW, Algorithm 2 of Loshchilov and Hutter (2019)."""
    beta1, beta2 = betas
    t = state["step"] = state.get("step", 0) + 1
    m_hat = _average(state, "exp_avg", grad, beta1) / (1 - beta1**t)
    v_hat = _average(state, "exp_avg_sq", grad**2, beta2) / (1 - beta2**t)
    param.sub_(lr * (weight_decay * param + m_hat / (v_hat.sqrt() + eps)))


class Reference:
    """One of the steps above, applied to a list of whole parameters, which it updates in place."""

    def __init__(self, params: Sequence[Tensor], step: Callable[..., None], **hyper: Any) -> None:
        self.params, self.hyper, self._step = list(params), hyper, step
        self.states: list[State] = [{} for _ in self.params]

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor]) -> None:
        """Update the parameters by gradients of the same shapes."""
        for param, grad, state in zip(self.params, grads, self.states, strict=True):
            self._step(param, grad, state, **self.hyper)


def _average(state: State, name: str, value: Tensor, beta: float) -> Tensor:
    """Exponential moving average from zero, kept under `name`."""
    state[name] = beta * state.get(name, torch.zeros_like(value)) + (1 - beta) * value
    return state[name]


def _factored_average(state: State, name: str, value: Tensor, beta: float) -> Tensor:
    """Averages of the row and column means, and the matrix they stand for: row col / mean(row)."""
    row = _average(state, f"{name}_row", value.mean(-1), beta)  # (*, rows)
    col = _average(state, f"{name}_col", value.mean(-2), beta)  # (*, cols)
    return row.unsqueeze(-1) * col.unsqueeze(-2) / row.mean(-1, keepdim=True).unsqueeze(-1)
