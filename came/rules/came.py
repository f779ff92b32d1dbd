"""CAME: Confidence-guided Adaptive Memory Efficient optimization (Luo et al., ACL 2023, Algorithm 2).

Defaults are the paper's: betas 0.9, 0.999, 0.9999; eps 1e-30, 1e-16; clipping threshold 1. There is no bias correction: the first
update is some 11 times the learning rate in RMS, which is why the paper warms up.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from came import kernels, lockstep
from came.interval import Interval
from came.lockstep import Coroutine, Sum
from came.momentum import DTYPES
from came.observation import Observer
from came.optimizer import Entry, ShardedOptimizer, logger
from came.rules import Kind, Rule, StateSpec
from came.rules.checks import check as require
from came.rules.checks import check_betas, check_choice, check_common, check_eps_pair, check_positive
from came.rules.factors import averaged_factors, clipping, scaled, squares_of_scaled
from came.rules.variants import move


def update(
    interval: Interval, param: Tensor, grad: Tensor, state: dict[str, Tensor], hyper: dict[str, Any], observer: Observer
) -> Coroutine:
    """One update of the elements of `interval`; three reductions for a matrix, one for a vector."""
    return (_update_matrix if interval.factored else _update_vector)(interval, param, grad, state, hyper, observer)


def _update_matrix(
    interval: Interval, param: Tensor, grad: Tensor, state: dict[str, Tensor], hyper: dict[str, Any], observer: Observer
) -> Coroutine:
    beta1, beta2, beta3 = hyper["betas"]
    eps1, eps2 = hyper["eps"]
    bias1, bias2, bias3 = _biases(state, hyper)

    # Second moment of the gradient, factored (lines 2-4).
    sums = yield Sum(*interval.row_col_sums(torch.square, grad))
    row, col = averaged_factors(interval, state["exp_avg_sq_row"], state["exp_avg_sq_col"], sums, 1 - beta2, eps1)
    row *= bias2**0.5

    # The update that it gives (line 5), clipped by its RMS over the whole parameter (line 6).
    (sum_of_squares,) = yield Sum(interval.sum(squares_of_scaled, grad, factors=(row, col)))
    clip = clipping(interval, sum_of_squares, hyper)
    observer.clipping(interval, clip)
    row /= clip

    # Its momentum (line 7), and how far it strays from that, factored (lines 8-10).
    def squared_lag(g: Tensor, m: Tensor, row: Tensor, col: Tensor) -> Tensor:
        lag = torch.addcmul(m, g * row, col, value=-1)  # m - u; it leaves beta1 (m - u) of itself
        m.sub_(lag, alpha=1 - beta1)
        return lag.square_()

    sums = yield Sum(*(beta1**2 * lags for lags in interval.row_col_sums(squared_lag, grad, state["exp_avg"], factors=(row, col))))
    row, col = averaged_factors(interval, state["exp_avg_res_row"], state["exp_avg_res_col"], sums, 1 - beta3, eps2)
    row *= bias3**0.5 / bias1
    observer.confidence(interval, row, col)

    # The step along the momentum over the root of that (lines 11-12).
    yield from move(interval, param, grad, state["exp_avg"], scaled, (row, col), hyper, observer)


def _update_vector(
    interval: Interval, param: Tensor, grad: Tensor, state: dict[str, Tensor], hyper: dict[str, Any], observer: Observer
) -> Coroutine:
    """The same with a full second moment and without a confidence, as in the authors' implementation."""
    beta1, beta2, _ = hyper["betas"]
    eps1, _ = hyper["eps"]
    bias1, bias2, _ = _biases(state, hyper)

    def squared_update(g: Tensor, v: Tensor) -> Tensor:
        v.lerp_(g.square().add_(eps1), 1 - beta2)
        return (g * v.rsqrt()).square_().mul_(bias2)

    (sum_of_squares,) = yield Sum(interval.sum(squared_update, grad, state["exp_avg_sq"]))
    clip = clipping(interval, sum_of_squares, hyper)
    observer.clipping(interval, clip)
    scale = bias2**0.5 / clip
    interval.each(lambda g, v, m: m.lerp_((g * v.rsqrt()).mul_(scale), 1 - beta1), grad, state["exp_avg_sq"], state["exp_avg"])

    yield from move(interval, param, grad, state["exp_avg"], lambda m: m / bias1, (), hyper, observer)
    if hyper["legacy_1d"]:
        state["exp_avg"].mul_(hyper["lr"])


def _biases(state: dict[str, Tensor], hyper: dict[str, Any]) -> list[float]:
    """What the averages m, v and S lack after t steps from zero, 1 - beta^t, with `bias_correction`; else, as in the paper, nothing."""
    step = int(state["step"])
    return [1 - beta**step if hyper["bias_correction"] else 1.0 for beta in hyper["betas"]]


def state(interval: Interval) -> StateSpec:
    """Momentum for every element; row and column factors for a matrix, a full second moment for a vector."""
    common = {"step": Kind.STEP, "exp_avg": Kind.LOCAL}
    if not interval.factored:
        return {**common, "exp_avg_sq": Kind.LOCAL}
    factors = {"exp_avg_sq_row": Kind.ROW, "exp_avg_sq_col": Kind.COL, "exp_avg_res_row": Kind.ROW, "exp_avg_res_col": Kind.COL}
    return {**common, **factors}


def check(hyper: dict[str, Any]) -> None:
    check_common(hyper)
    require("seed", hyper["seed"], isinstance(hyper["seed"], int) and 0 <= hyper["seed"] < 2**64, "a whole number from 0 to 2^64 - 1")
    check_betas(hyper["betas"], 3)
    check_eps_pair(hyper["eps"])
    check_positive(hyper, "clip_threshold")
    if hyper.get("max_grad_norm") is not None:
        check_positive(hyper, "max_grad_norm")


RULE = Rule("CAME", update, state, check)


class CAME(ShardedOptimizer):
    """CAME (Luo et al., "CAME: Confidence-guided Adaptive Memory Efficient Optimization", ACL 2023, Algorithm 2).

    Momentum for every element, row and column factors for everything else: about half of AdamW's state. An ordinary optimizer for
    any model, and the same algorithm where it is sharded by DeepSpeed ZeRO (stages 0-3) or FSDP2.

    Args:
        params: parameters or parameter groups.
        lr: learning rate; the paper advises 0.5 to 0.9 times AdamW's.
        eps: added to the squared gradient and to the squared residual.
        clip_threshold: largest RMS of one parameter's update before momentum.
        betas: decay of the momentum, of the second moment and of the confidence.
        weight_decay: decoupled weight decay.
        maximize: ascend instead.
        max_grad_norm: scale all gradients down to this global norm; for whole parameters (plain PyTorch, DDP), where it costs the fused
            step no pass of its own. Sharded ones are clipped by their engine.
        implementation: "eager", the rule in PyTorch; "triton", the fused step of `came.kernels`; "auto", the fused step where it can be
            taken, on NVIDIA GPUs, and else the rule. State is the same for both, updates are but for rounding.
        bias_correction: NOT THE PAPER'S. Divide the second moment, the confidence and the applied momentum by 1 - beta^t (the residual
            keeps the momentum as it is): the first update is then some 1.1 times the learning rate instead of 11.
        cautious: NOT THE PAPER'S. Move only those elements whose update has the gradient's sign (Liang et al., 2024).
        trust_ratio: NOT THE PAPER'S. Scale each matrix's update, decay included, by |weights| / |update| (LAMB; You et al., 2020).
        momentum_dtype: how the momentum is kept between steps: float32; bfloat16; int8, in blocks of 256 elements with a scale each. Both
            of the latter are rounded stochastically. Everything is computed in float32, and everything else is kept in it.
        seed: of that rounding. The random numbers are keyed by seed, step, parameter and element, so that any layout draws the same.
        legacy_1d: NOT THE PAPER'S. Multiply the momentum of vectors by the learning rate after each step: a fault of the authors' BERT
            harness, for reproducing its numbers only.

    Raises:
        ValueError: a hyper-parameter is out of its range.
        came.layouts.LayoutError: at the first step, where the parameters are sharded in a way that cannot be located, or are sharded and to
            be clipped.
    """

    rule = RULE
    implementation: str = "auto"
    _fused: kernels.FusedSteps | None = None
    _said: bool = False

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 2e-4,
        eps: tuple[float, float] = (1e-30, 1e-16),
        clip_threshold: float = 1.0,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        max_grad_norm: float | None = None,
        implementation: str = "auto",
        bias_correction: bool = False,
        cautious: bool = False,
        trust_ratio: bool = False,
        legacy_1d: bool = False,
        momentum_dtype: str = "float32",
        seed: int = 0,
    ) -> None:
        require("momentum_dtype", momentum_dtype, momentum_dtype in DTYPES, f"one of {', '.join(DTYPES)}")
        self.rule = replace(RULE, momentum_dtype=momentum_dtype)
        paper = dict(lr=lr, eps=eps, clip_threshold=clip_threshold, betas=betas, weight_decay=weight_decay, maximize=maximize)
        variants = dict(bias_correction=bias_correction, cautious=cautious, trust_ratio=trust_ratio, legacy_1d=legacy_1d)
        check_choice("implementation", implementation, kernels.IMPLEMENTATIONS)
        self.implementation = implementation
        self._obstacles: dict[int, tuple[tuple, str | None]] = {}
        self._agreed: dict[tuple, bool] = {}
        super().__init__(params, {**paper, **variants, "max_grad_norm": max_grad_norm, "seed": seed})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; raises ValueError for a hyper-parameter out of its range, and for an option that `implementation="triton"` lacks."""
        option = kernels.option_without_kernel({**self.defaults, **param_group})
        if self.implementation == "triton" and option is not None:
            raise ValueError(f'{option}=True has no kernel: leave implementation="auto", which takes the rule in PyTorch for it')
        super().add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "implementation": self.implementation}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_obstacles", {})
        self.__dict__.setdefault("_agreed", {})

    def gradient_scale(self) -> Tensor | None:
        """`max_grad_norm` over the norm of all gradients, where that is less than 1."""
        return self.scale_to_norm(self.defaults["max_grad_norm"])

    def _update(self, entries: Sequence[Entry]) -> None:
        """By the kernels what they take, the rest by the rule."""
        obstacles = self._agreed_obstacles(entries)
        fused = [entry for entry, obstacle in zip(entries, obstacles, strict=True) if obstacle is None]
        rest = [entry for entry, obstacle in zip(entries, obstacles, strict=True) if obstacle is not None]
        self._say_once(obstacles)
        if not fused:
            return super()._update(entries)
        scale, limit = None, self.defaults["max_grad_norm"]
        if limit is not None:
            self.refuse_sharded_clipping()
            if rest or len({entry.place.handed.device for entry in fused}) > 1:
                scale, limit = self.gradient_scale(), None
        if self._fused is None:
            self._fused = kernels.FusedSteps(self)
        self._fused.run(fused, scale, limit, self.update_statistics, self.traffic)
        lockstep.run(self._jobs(rest, scale), self.traffic)

    def _agreed_obstacles(self, entries: Sequence[Entry]) -> list[str | None]:
        """Why each entry is left to the rule, None where it is not; of sharded ones the same on every rank that has a part in them. Raises
        ValueError, on every such rank, where kernels were asked for and cannot be had."""
        obstacles = [self._obstacle(entry) for entry in entries]
        if self.implementation == "eager":
            return obstacles
        self._agree(entries, obstacles)
        overruled = (None, _NOT_CONSIDERED) if self.implementation == "triton" else (None,)
        for number, entry in enumerate(entries):
            if obstacles[number] in overruled and not self._agreed.get(self._question(entry), True):
                obstacles[number] = _OF_ANOTHER_RANK
        found = next((obstacle for obstacle in obstacles if obstacle not in (None, _NOT_CONSIDERED)), None)
        if found is not None and self.implementation == "triton":
            raise ValueError(f'implementation="triton" cannot be taken: {found}; "auto" takes the rule in PyTorch')
        return obstacles

    def _agree(self, entries: Sequence[Entry], obstacles: Sequence[str | None]) -> None:
        """Settle with the ranks that share them what is done with sharded entries that are met for the first time: kernels and rule do not
        wait for the same reductions, and on one machine Triton may fail. A rank that holds nothing of an entry has nothing against it."""
        asked: dict[int, list[tuple[Entry, str | None]]] = {}
        for entry, obstacle in zip(entries, obstacles, strict=True):
            if entry.place.layout.partitioned and self._question(entry) not in self._agreed:
                asked.setdefault(id(entry.group), []).append((entry, obstacle))
        for of_group in asked.values():
            verdicts = [obstacle is None or not entry.place.shards for entry, obstacle in of_group]
            for sharing in self.sharing(of_group[0][0]):
                verdicts = lockstep.agreed(verdicts, sharing)
            self._agreed.update(zip((self._question(entry) for entry, _ in of_group), verdicts, strict=True))
            if any(obstacle is None and not verdict for (_, obstacle), verdict in zip(of_group, verdicts, strict=True)):
                logger.warning(f"{self.rule.name}: the rule in PyTorch is taken, because {_OF_ANOTHER_RANK}")

    def _question(self, entry: Entry) -> tuple:
        """What ranks agree on: a tensor, and of what they have to be of one mind about all that may change from step to step."""
        return id(entry.place.handed), self.implementation, entry.place.gradient.dtype, _options(entry.group)

    def _obstacle(self, entry: Entry) -> str | None:
        """Why this rank would leave an entry to the rule, None where it would not."""
        if self.implementation == "eager" or not entry.place.shards:
            return _NOT_CONSIDERED
        if self.implementation == "auto" and not kernels.chosen_for(entry.place.handed):
            return _NOT_CONSIDERED
        return self._known_obstacle(entry)

    def _known_obstacle(self, entry: Entry) -> str | None:
        """`kernels.obstacle`, looked for anew where something that it depends on has changed."""
        handed, gradient, group = entry.place.handed, entry.place.gradient, entry.group
        state = self.state[handed]
        traits = (
            id(state),
            id(state.get("exp_avg")),
            gradient.dtype,
            gradient.layout,
            handed.dtype,
            handed.device,
            handed.is_contiguous(),
            _options(group),
        )
        known = self._obstacles.get(id(handed))
        if known is None or known[0] != traits:
            shapes = self.shapes_in(entry)
            obstacle = kernels.obstacle(entry.place, state, self.rule, group, shapes)
            if obstacle is None and self.implementation == "auto":
                obstacle = kernels.dwarfed(shapes) or kernels.distrusted(entry.place, state, self.rule)
            known = self._obstacles[id(handed)] = traits, obstacle
        return known[1]

    def _say_once(self, obstacles: Sequence[str | None]) -> None:
        """How many tensors the kernels take, and why not the others, where they were considered at all."""
        considered = [obstacle for obstacle in obstacles if obstacle is not _NOT_CONSIDERED]
        if considered and not self._said:
            first = next(filter(None, considered), None)
            but = f"; the others go by the rule in PyTorch, the first because {first}" if first else ""
            logger.info(f"{self.rule.name}: kernels take {considered.count(None)} of {len(considered)} tensors{but}")
            self._said = True


def _options(group: dict[str, Any]) -> tuple[bool, ...]:
    """Those that have no kernel."""
    return group["cautious"], group["trust_ratio"], group["legacy_1d"]


_NOT_CONSIDERED = "not considered"
_OF_ANOTHER_RANK = "the kernels cannot be taken on another rank that shares the parameters"
