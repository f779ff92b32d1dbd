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
    bias_correction: bool = False,
    cautious: bool = False,
    trust_ratio: bool = False,
    legacy_1d: bool = False,
) -> None:
    """CAME, Algorithm 2 of Luo et al. (2023); a parameter of more than two dimensions is a stack of matrices.

    The last four are not the paper's: see `came.CAME`.
    """
    beta1, beta2, beta3 = betas
    eps1, eps2 = eps
    t = state["step"] = state.get("step", 0) + 1
    bias1, bias2, bias3 = (1 - beta**t if bias_correction else 1.0 for beta in betas)

    if param.dim() >= 2:
        v = _factored_average(state, "exp_avg_sq", grad**2 + eps1, beta2) / bias2
    else:
        v = _average(state, "exp_avg_sq", grad**2 + eps1, beta2) / bias2
    u = grad / v.sqrt()
    u = u / max(1.0, float(_rms(u)) / clip_threshold)

    m = _average(state, "exp_avg", u, beta1)

    if param.dim() >= 2:
        s = _factored_average(state, "exp_avg_res", (u - m) ** 2 + eps2, beta3) / bias3
        direction = m / bias1 / s.sqrt()
    else:
        direction = m / bias1

    if cautious:
        mask = (direction * grad > 0).to(param.dtype)
        direction = direction * mask * (mask.numel() / (mask.sum() + 1))
    update = weight_decay * param + direction
    if trust_ratio and param.dim() >= 2:
        update = _trust_ratio(param, update) * update
    param.sub_(lr * update)
    if legacy_1d and param.dim() < 2:
        state["exp_avg"] = lr * m


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


def lamb_step(
    param: Tensor,
    grad: Tensor,
    state: State,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.01,
    adapt: bool | None = None,
) -> None:
    """LAMB, Algorithm 2 of You et al. (2020), with the identity for phi; without weight decay there is by default no adaptation."""
    beta1, beta2 = betas
    t = state["step"] = state.get("step", 0) + 1
    m_hat = _average(state, "exp_avg", grad, beta1) / (1 - beta1**t)
    v_hat = _average(state, "exp_avg_sq", grad**2, beta2) / (1 - beta2**t)
    update = m_hat / (v_hat.sqrt() + eps) + weight_decay * param
    if adapt is None:
        adapt = weight_decay > 0
    ratio = _trust_ratio(param, update) if adapt else 1.0
    param.sub_(lr * ratio * update)


def adafactor_step(
    param: Tensor,
    grad: Tensor,
    state: State,
    *,
    lr: float = 1e-2,
    beta2_decay: float = -0.8,
    eps: tuple[float, float] = (1e-30, 1e-3),
    clip_threshold: float = 1.0,
    beta1: float | None = None,
    weight_decay: float = 0.0,
    scale_parameter: bool = True,
    relative_step: bool = True,
) -> None:
    """Adafactor, Algorithms 4 (matrices), 5 (vectors) and 6 (schedules) of Shazeer and Stern (2018)."""
    eps1, eps2 = eps
    t = state["step"] = state.get("step", 0) + 1
    rho = min(lr, t**-0.5) if relative_step else lr
    alpha = max(eps2, float(_rms(param))) * rho if scale_parameter else rho

    average = _factored_average if param.dim() >= 2 else _average
    v = average(state, "exp_avg_sq", grad**2 + eps1, 1 - t**beta2_decay)
    u = grad / v.sqrt()
    u = u / max(1.0, float(_rms(u)) / clip_threshold)
    if beta1 is not None:
        u = _average(state, "exp_avg", u, beta1)

    param.sub_(alpha * (weight_decay * param + u))


def sm3_step(param: Tensor, grad: Tensor, state: State, *, lr: float = 0.1, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
    """SM3-II of Anil et al. (2019) with row and column covers; a parameter of more than two dimensions is a stack of matrices."""
    if param.dim() >= 2:
        row = state.get("accumulator_row", torch.zeros_like(grad[..., :1]))  # (*, rows, 1)
        col = state.get("accumulator_col", torch.zeros_like(grad[..., :1, :]))  # (*, 1, cols)
        nu = torch.minimum(row, col) + grad**2
        state["accumulator_row"], state["accumulator_col"] = nu.amax(-1, keepdim=True), nu.amax(-2, keepdim=True)
    else:
        nu = state["accumulator"] = state.get("accumulator", torch.zeros_like(grad)) + grad**2
    u = torch.where(nu > 0, grad / nu.sqrt(), torch.zeros_like(grad))  # 0/0 is 0
    if momentum:
        u = _average(state, "exp_avg", u, momentum)
    param.sub_(lr * (weight_decay * param + u))


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


def _trust_ratio(param: Tensor, update: Tensor) -> float:
    """|param| / |update|; 1 where either is zero."""
    norms = float(param.norm()), float(update.norm())
    return norms[0] / norms[1] if min(norms) > 0 else 1.0


def _rms(tensor: Tensor) -> Tensor:
    return tensor.square().mean().sqrt()


def _factored_average(state: State, name: str, value: Tensor, beta: float) -> Tensor:
    """Averages of the row and column means, and the matrix they stand for: row col / mean(row)."""
    row = _average(state, f"{name}_row", value.mean(-1), beta)  # (*, rows)
    col = _average(state, f"{name}_col", value.mean(-2), beta)  # (*, cols)
    return row.unsqueeze(-1) * col.unsqueeze(-2) / row.mean(-1, keepdim=True).unsqueeze(-1)
