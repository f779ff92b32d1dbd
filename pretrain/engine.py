"""The harness's one door to DeepSpeed.

`Engine` accumulates one whole window of micro-batches into the gradient of the global mean loss, and applies or skips one optimizer
step. It drives the accumulation boundary itself, owns the learning rate, and guarantees what DeepSpeed does not at every stage: a
step with a non-finite gradient is never applied, is reported, and leaves weights and state as they were.
"""

import collections
import contextlib
import io
import logging
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from came.optimizer import ShardedOptimizer, UpdateStatistics
from pretrain import distributed
from pretrain.batch_plan import BatchPlan
from pretrain.config.schema import Config
from pretrain.engine_settings import deepspeed_config, harness_owns_the_step
from pretrain.errors import UserError
from pretrain.model.objective import Batch, PretrainingModel, Sums, combine


@dataclass(frozen=True)
class StepResult:
    """What became of one optimizer step."""

    applied: bool
    grad_norm: float
    """Global gradient norm before clipping; not finite where the step was skipped."""
    bad_parameter: str | None = None
    """After a skip: the first parameter, in the model's order, whose gradient is not finite on some rank."""
    loss_scale_search: bool = False
    """fp16 only: the step was skipped because the dynamic loss scale was still too large, which is ordinary."""


class Engine:
    """A model and its optimizer on this rank, trained through DeepSpeed ZeRO stage 0 to 3.

    Needs an initialised process group. Every method is to be called by all ranks together.
    """

    def __init__(self, model: PretrainingModel, optimizer: ShardedOptimizer, config: Config, plan: BatchPlan) -> None:
        deepspeed = _import_deepspeed()
        self.optimizer, self.config, self.plan = optimizer, config, plan
        self.device = distributed.device()
        self.names = {param: name for name, param in model.named_parameters()}
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # its memory notes
                self._engine, *_ = deepspeed.initialize(
                    model=model, optimizer=optimizer, config=deepspeed_config(config, plan, self.device.type == "cuda")
                )
        except ValueError as error:
            if not config.zero.extra:
                raise
            reason = " ".join(str(error).split("For further information")[0].split())  # the rest of DeepSpeed's settings are ours
            raise UserError(f"DeepSpeed does not take zero.extra={dict(config.zero.extra)}: {reason}") from error
        self._model = model
        self.gradient_bytes = 0
        """Bytes of the gradient pieces that this rank held at the last step."""
        self._owns_the_step = harness_owns_the_step(config)

    @property
    def model(self) -> nn.Module:
        """The trained module; its parameters may be sharded. Never call it: see `accumulate` and `evaluate`."""
        return self._engine.module

    @property
    def loss_scale(self) -> float:
        """fp16's dynamic loss scale; 1 in the other precisions."""
        return float(self._engine.optimizer.loss_scale) if self.config.train.precision == "fp16" else 1.0

    def set_loss_scale(self, scale: float) -> None:
        """Restore fp16's dynamic loss scale from a checkpoint."""
        if self.config.train.precision == "fp16":
            self._loss_scaler.cur_scale = scale

    @property
    def _loss_scaler(self):
        """fp16 only: what holds the dynamic loss scale, at stages 1-3 and at stage 0."""
        inner = self._engine.optimizer
        return inner.loss_scaler if hasattr(inner, "loss_scaler") else inner.loss_scale_config

    # One optimizer step -------------------------------------------------------------------------------------------------------

    def accumulate(self, window: Sequence[Batch]) -> Tensor:
        """Add up the gradient of the window's mean loss over all ranks; returns this loss (a scalar on the device, not yet summed
        over ranks: see `mean_loss`).

        Each part of the loss is divided by its number of valid targets in the whole global batch, so that the result does not
        depend on how the batch is cut into micro-batches and ranks.
        """
        names = self._model.loss_names
        local_counts = {name: 0.0 for name in names}
        for batch in window:
            for name, count in self._model.valid_counts(batch).items():
                local_counts[name] += count
        counts = {name: max(count, 1.0) for name, count in distributed.sum_over_ranks(local_counts).items()}

        self._engine.train()
        total = torch.zeros((), device=self.device)
        for index, batch in enumerate(window):
            self._engine.set_gradient_accumulation_boundary(index == len(window) - 1)
            loss = combine(self._engine(self._to_device(batch)), counts, names)
            # DeepSpeed averages gradients over the ranks: make that the sum that a global mean needs.
            self._engine.backward(loss * self.plan.world_size, scale_wrt_gas=False)
            total += loss.detach()
        return total

    def mean_loss(self, local: Tensor) -> float:
        """The loss of the whole global batch from each rank's share of it. Waits for the device."""
        total = local.detach().double().clone()
        if self.plan.world_size > 1:
            dist.all_reduce(total)
        return float(total)

    def step(self, lr: float, observe_updates: bool = False) -> StepResult:
        """Apply the accumulated gradient at learning rate `lr`, or skip it if it is not finite on any rank.

        With `observe_updates` the optimizer's `update_rms` speaks of this step.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.update_statistics = UpdateStatistics() if observe_updates else None
        named = self._local_gradients()
        self.gradient_bytes = sum(grad.numel() * grad.element_size() for _, grad in named)
        norms = torch.stack(torch._foreach_norm([grad for _, grad in named])) if named else torch.zeros(0)
        scale_before = self.loss_scale
        applied, grad_norm = self._checked_step(norms) if self._owns_the_step else self._deepspeed_step()
        if applied:
            return StepResult(True, grad_norm)
        searching = self.config.train.precision == "fp16" and scale_before > self._loss_scaler.min_scale
        return StepResult(False, grad_norm, self._first_bad([name for name, _ in named], norms), searching)

    def _deepspeed_step(self) -> tuple[bool, float]:
        self._engine.step()
        norm, applied = self._engine.get_global_grad_norm(), self._engine.was_step_applied()
        if not applied and self.config.zero.offload == "cpu":
            gradients = self._engine.optimizer.averaged_gradients
            gradients.update(dict.fromkeys(gradients))  # else DeepSpeed adds the next step's to what it has just refused
        return applied, math.nan if norm is None else float(norm)

    def _checked_step(self, norms: Tensor) -> tuple[bool, float]:
        """The check, norm and clipping that DeepSpeed leaves out at stage 0 in fp32; gradients are the same on every rank."""
        norm = torch.linalg.vector_norm(norms)
        grad_norm = float(norm)
        if not math.isfinite(grad_norm):
            self._engine.zero_grad()
            return False, grad_norm
        if self.config.train.grad_clip and grad_norm > self.config.train.grad_clip:
            grads = [param.grad for param in self.names if param.grad is not None]
            torch._foreach_mul_(grads, self.config.train.grad_clip / (norm + 1e-6))
        self._engine.step()
        return True, grad_norm

    def _local_gradients(self) -> list[tuple[str, Tensor]]:
        """This rank's part of the reduced gradient, piece by piece with the parameters' names, before the step consumes it."""
        inner = self._engine.optimizer
        if self.config.zero.offload == "cpu":
            return self._offloaded_gradients()
        if hasattr(inner, "fp32_groups_gradients"):  # BF16_Optimizer
            pairs = [pair for params, grads in zip(inner.bf16_groups, inner.fp32_groups_gradients) for pair in zip(params, grads)]
        elif hasattr(inner, "averaged_gradients"):  # ZeRO-1/2, ZeRO-3
            groups = inner.params_in_partition if hasattr(inner, "params_in_partition") else inner.fp16_groups
            pairs = [pair for index, grads in inner.averaged_gradients.items() for pair in zip(groups[index], grads or ())]
        else:
            pairs = [(param, param.grad) for param in self.names]
        return [(self.names[param], grad) for param, grad in pairs if grad is not None]

    def _offloaded_gradients(self) -> list[tuple[str, Tensor]]:
        """The pieces of the flat fp32 gradients that lie beside the masters in the host's memory."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()  # they are copied there without waiting
        return [
            (self.names[shard.param], shard.of(place.handed.grad))
            for place in self.optimizer.places()
            for shard in place.shards
            if place.handed.grad is not None and shard.interval.numel
        ]

    def _first_bad(self, names: Sequence[str], norms: Tensor) -> str | None:
        mine = {name for name, finite in zip(names, norms.isfinite().tolist(), strict=True) if not finite}
        bad = set().union(*distributed.gather_objects(mine))
        return next((name for name in self.names.values() if name in bad), None)

    # Evaluation ---------------------------------------------------------------------------------------------------------------

    def valid_counts(self, batch: Batch) -> dict[str, int]:
        """Targets in a micro-batch, for each part of the loss."""
        return self._model.valid_counts(batch)

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Sums:
        """Sums of one micro-batch in evaluation mode, without dropout or gradients."""
        self._engine.eval()
        return self._engine(self._to_device(batch))

    def push_masters(self) -> None:
        """After master weights were restored from a checkpoint: bring the model's own weights into line."""
        layout = next(self.optimizer.places()).layout
        layout.push_masters(self._engine.optimizer)

    def destroy(self) -> None:
        """Take DeepSpeed's hooks off the model and free its buffers."""
        self._engine.destroy()

    def _to_device(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}


def _import_deepspeed():
    """DeepSpeed, quiet, and on a CPU without the optional operator that it would compile for a minute."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops

    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__ = collections.defaultdict(bool)
    deepspeed.utils.logger.setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*`torch.distributed.*` is deprecated", category=FutureWarning)  # DeepSpeed's own calls
    return deepspeed
