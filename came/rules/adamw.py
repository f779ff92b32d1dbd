"""AdamW: Adam with decoupled weight decay (Kingma and Ba, 2015, Algorithm 1; Loshchilov and Hutter, 2019, Algorithm 2)."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from came.interval import Interval
from came.layouts import local
from came.lockstep import Coroutine
from came.observation import Observer
from came.optimizer import Entry, ShardedOptimizer, flat, flat_gradient, hyper_parameters
from came.rules import Kind, Rule, StateSpec, add_decay_, step_
from came.rules.checks import check_betas, check_common, check_positive

_FUSED_DEVICES = ("cpu", "cuda")
"""Those for which torch has Adam in one pass, in float32 and float64."""

_TOGETHER_DEVICES = ("cuda",)
"""Those where one launch takes many tensors. A CPU takes them in pieces that fit its cache."""

_TOGETHER_ELEMENTS = 2**26
"""Directions that are held at a time there; more in one tensor alone."""


def update(
    interval: Interval, param: Tensor, grad: Tensor, state: dict[str, Tensor], hyper: dict[str, Any], observer: Observer
) -> Coroutine:
    """One update, element by element: it needs nothing from the other ranks."""
    step, fused = int(state["step"]), param.device.type in _FUSED_DEVICES

    def move(p: Tensor, g: Tensor, m: Tensor, v: Tensor) -> None:
        if fused:
            (direction,) = fused_directions([p], [g], [m], [v], step, hyper)
        else:
            average_moments(g, m, v, hyper)
            direction = add_decay_(adam_direction(m, v, step, hyper), p, hyper)
        step_(p, direction, hyper["lr"], observer)

    interval.each(move, param, grad, state["exp_avg"], state["exp_avg_sq"])
    return
    yield  # makes this function a coroutine, like the rules that do reduce


def fused_directions(
    params: Sequence[Tensor], grads: Sequence[Tensor], ms: Sequence[Tensor], vs: Sequence[Tensor], step: int, hyper: dict[str, Any]
) -> list[Tensor]:
    """The moments averaged in place, and along what to move, by torch's fused kernels: they move `weight_decay * p` by Adam's direction.

    The tensors are contiguous, of one dtype, float32 or float64, and on one device, for which the host does not wait. The weights are not
    given to the kernels, which round them twice, after the decay and after the step: an element's decay rounds to the same side for many
    steps.
    """
    (beta1, beta2), eps, decay = hyper["betas"], hyper["eps"], float(hyper["weight_decay"])
    directions = list(torch._foreach_mul(list(params), decay)) if decay else [torch.zeros_like(param) for param in params]
    steps = [torch.full((), step, dtype=torch.float32, device=params[0].device)] * len(params)
    options: dict[str, Any] = dict(lr=-1.0, beta1=beta1, beta2=beta2, weight_decay=0.0, eps=eps, amsgrad=False, maximize=False)
    torch._fused_adamw_(directions, list(grads), list(ms), list(vs), [], steps, **options)
    return directions


def average_moments(g: Tensor, m: Tensor, v: Tensor, hyper: dict[str, Any]) -> None:
    """`m = beta1 m + (1 - beta1) g` and `v = beta2 v + (1 - beta2) g^2`, in place."""
    beta1, beta2 = hyper["betas"]
    m.lerp_(g, 1 - beta1)
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)


def adam_direction(m: Tensor, v: Tensor, step: int, hyper: dict[str, Any]) -> Tensor:
    """`m / (sqrt(v) + eps)` of the bias-corrected moments after `step` updates, a new tensor."""
    beta1, beta2 = hyper["betas"]
    denominator = (v / (1 - beta2**step)).sqrt_().add_(hyper["eps"])
    return (m / (1 - beta1**step)).div_(denominator)


def state(interval: Interval) -> StateSpec:
    """Two moments of every element."""
    return {"step": Kind.STEP, "exp_avg": Kind.LOCAL, "exp_avg_sq": Kind.LOCAL}


def check(hyper: dict[str, Any]) -> None:
    check_common(hyper)
    check_betas(hyper["betas"], 2)
    check_positive(hyper, "eps")


RULE = Rule("AdamW", update, state, check)


class AdamW(ShardedOptimizer):
    """AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019), the measure of the others.

    Same mathematics as `torch.optim.AdamW`, with the same arguments and errors as `CAME`. On CPUs and CUDA devices torch's fused kernels
    compute the moments and the direction, elsewhere the rule in PyTorch does: state is the same for both, updates are but for rounding.
    """

    rule = RULE

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize))

    def _update(self, entries: Sequence[Entry]) -> None:
        """By the rule; where one launch takes many tensors, those that lie as it wants them together, to the same values."""
        together = [entry for entry in entries if _can_go_together(entry)]
        taken = {id(entry.place) for entry in together}
        super()._update([entry for entry in entries if id(entry.place) not in taken])
        for batch in self._batches(together):
            batch.move(self.update_statistics or Observer())

    def _batches(self, entries: Sequence[Entry]) -> Iterator["_Batch"]:
        """The shards of these entries, in batches of one group, step count, device and dtype."""
        open_batches: dict[tuple, _Batch] = {}
        hypers = hyper_parameters(entries)
        for place, group in entries:
            weights, grad = flat(place.handed.detach()), flat_gradient(place.handed)
            for shard, state in zip(place.shards, self.state_views(place), strict=True):
                if not shard.interval.numel:
                    continue
                key = id(group), int(state["step"]), weights.device, weights.dtype
                batch = open_batches.get(key)
                if batch is not None and batch.numel + shard.interval.numel > _TOGETHER_ELEMENTS:
                    yield batch
                    batch = None
                if batch is None:
                    batch = open_batches[key] = _Batch(hypers[id(group)], int(state["step"]))
                batch.add(shard.of(weights), shard.of(grad), state["exp_avg"], state["exp_avg_sq"])
        yield from open_batches.values()


class _Batch:
    """Tensors that move together: as `update`, to the same values."""

    def __init__(self, hyper: dict[str, Any], step: int) -> None:
        self._hyper, self._step = hyper, step
        self._lists: tuple[list[Tensor], ...] = [], [], [], []
        self.numel = 0

    def add(self, *tensors: Tensor) -> None:
        """Weights, gradient and both moments of a shard, each (numel,)."""
        for held, tensor in zip(self._lists, tensors, strict=True):
            held.append(tensor)
        self.numel += tensors[0].numel()

    def move(self, observer: Observer) -> None:
        params, grads, ms, vs = self._lists
        directions = fused_directions(params, grads, ms, vs, self._step, self._hyper)
        torch._foreach_add_(params, directions, alpha=-self._hyper["lr"])
        for direction in directions:
            observer.direction(direction)


def _can_go_together(entry: Entry) -> bool:
    """Whether weights and gradient can be taken as they lie, without copies."""
    weights, grad = local(entry.place.handed), entry.place.gradient
    if weights.device.type not in _TOGETHER_DEVICES or weights.dtype not in (torch.float32, torch.float64) or entry.group["maximize"]:
        return False
    return not grad.is_sparse and grad.dtype == weights.dtype and weights.is_contiguous() and grad.is_contiguous()
