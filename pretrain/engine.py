"""The harness's one door to DeepSpeed.

`Engine` accumulates one whole window of micro-batches into the gradient of the global mean loss, and applies or skips one optimizer
step. It drives the accumulation boundary itself, owns the learning rate, and guarantees what DeepSpeed does not at every stage: a
step with a non-finite loss or gradient, or one that the caller refuses by its gradient norm, is never applied, is reported, and leaves
weights and state as they were.
"""

import collections
import contextlib
import io
import logging
import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor, nn

from came.observation import UpdateStatistics
from came.optimizer import ShardedOptimizer
from pretrain import distributed
from pretrain.batch_plan import BatchPlan
from pretrain.config.schema import Config
from pretrain.engine_settings import deepspeed_config, harness_owns_the_step
from pretrain.errors import UserError
from pretrain.model.objective import Batch, PretrainingModel, Sums, combine
from pretrain.storages import bytes_by_device
from pretrain.timeline import Parts, Timeline, collectives_timed, untimed


@dataclass(frozen=True)
class StepResult:
    """What became of one optimizer step."""

    applied: bool
    grad_norm: float
    """Global gradient norm before clipping; where the step was skipped it is not finite, but for a spike."""
    reason: Literal["loss_not_finite", "gradient_not_finite", "spike"] | None = None
    """After a skip: why, on whichever rank it was."""
    bad_parameter: str | None = None
    """After a skip: the first parameter, in the model's order, whose gradient is not finite on some rank. A loss that is not finite
    makes all of them so."""
    loss_scale_search: bool = False
    """fp16 only: the step was skipped because the dynamic loss scale was still too large, which is ordinary."""

    @property
    def why(self) -> str:
        """The reason of a skip, for the user."""
        if self.reason == "spike":
            return f"its gradient norm, {self.grad_norm:.4g}, lies too far above those of the steps before (train.spike_sigma)"
        if self.reason == "loss_not_finite":
            return "the loss is not finite" + (f", nor is the gradient from {self.bad_parameter} on" if self.bad_parameter else "")
        culprit = f"the gradient of {self.bad_parameter}" if self.bad_parameter else "the gradient norm"
        return f"{culprit} is not finite" + (" at a loss scale that was too large" if self.loss_scale_search else "")


class Engine:
    """A model and its optimizer on this rank, trained through DeepSpeed ZeRO stage 0 to 3.

    Needs an initialised process group. Every method is to be called by all ranks together.
    """

    def __init__(self, model: PretrainingModel, optimizer: ShardedOptimizer, config: Config, plan: BatchPlan) -> None:
        deepspeed = import_deepspeed()
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
        self.gradient_bytes: Counter[str] = Counter()
        """Bytes of the gradients that this rank held at the last step that was observed, by type of device."""
        self._parts: Parts = untimed
        self._owns_the_step = harness_owns_the_step(config)
        self._window_loss = torch.zeros((), device=self.device)
        if config.train.precision == "fp16":
            self._loss_scaler.raise_error_at_min_scale = False  # it is for us to say how often a step may be skipped

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
        """fp16 only: what holds the dynamic loss scale."""
        return self._engine.optimizer.loss_scaler

    # One optimizer step -------------------------------------------------------------------------------------------------------

    def accumulate(self, window: Sequence[Batch]) -> Tensor:
        """Add up the gradient of the window's mean loss over all ranks; returns this loss (a scalar on the device, not yet summed
        over ranks: see `mean_loss`).

        Each part of the loss is divided by its number of valid targets in the whole global batch, so that the result does not
        depend on how the batch is cut into micro-batches and ranks. From the first micro-step to the last the host never waits for
        the device.
        """
        counts = self._global_counts(window)
        self._engine.train()
        total = torch.zeros((), device=self.device)
        with _explained(self.plan.micro_batch_size):
            for index, batch in enumerate(window):
                self._engine.set_gradient_accumulation_boundary(index == len(window) - 1)
                with self._parts("forward"):
                    loss = combine(self._engine(self._to_device(batch)), counts, self._model.loss_names)
                # DeepSpeed averages gradients over the ranks: make that the sum that a global mean needs. A loss can be infinite while its
                # gradient is not (or not yet, in bf16): NaN then takes its place, and every rank finds it in the reduced gradient.
                factor = torch.where(loss.detach().isfinite(), float(self.plan.world_size), math.nan)
                with self._parts("backward"):
                    self._engine.backward(loss * factor, scale_wrt_gas=False)
                total += loss.detach()
        self._window_loss = total
        return total

    def _global_counts(self, window: Sequence[Batch]) -> dict[str, float]:
        """Targets of the window over all ranks, at least 1, for each part of the loss."""
        local = dict.fromkeys(self._model.loss_names, 0.0)
        for batch in window:
            for name, count in self._model.valid_counts(batch).items():
                local[name] += count
        return {name: max(count, 1.0) for name, count in distributed.sum_over_ranks(local).items()}

    def mean_loss(self, local: Tensor) -> float:
        """The loss of the whole global batch from each rank's share of it. Waits for the device."""
        total = local.detach().double().clone()
        if self.plan.world_size > 1:
            dist.all_reduce(total)
        return float(total)

    def step(self, lr: float, observe_updates: bool = False, refuse: Callable[[float], bool] | None = None) -> StepResult:
        """Apply the accumulated gradient at learning rate `lr`, or skip it if the loss or the gradient is not finite on any rank.

        With `observe_updates` the optimizer's `statistics` and `gradient_bytes` speak of this step. A step for whose global gradient norm,
        before clipping and the same on every rank, `refuse` returns true is skipped too.
        """
        with self._parts("optimizer"):
            return self._step(lr, observe_updates, refuse)

    def _step(self, lr: float, observe_updates: bool, refuse: Callable[[float], bool] | None) -> StepResult:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.update_statistics = UpdateStatistics() if observe_updates else None
        named = self._local_gradients()
        if observe_updates or not self.gradient_bytes:
            self.gradient_bytes = bytes_by_device([*(grad for _, grad in named), *self._gradient_buffers()])
        norms = torch.stack(torch._foreach_norm([grad for _, grad in named])) if named else torch.zeros(0)
        scaler_before = dict(vars(self._loss_scaler)) if self.config.train.precision == "fp16" else {}
        norm = self._global_norm(norms) if refuse else math.nan
        refused = refuse is not None and math.isfinite(norm) and refuse(norm)
        applied, found_norm = self._checked_step(norms, refused) if self._owns_the_step else self._deepspeed_step(named, refused)
        if applied:
            return StepResult(True, norm if refuse else found_norm)
        result = StepResult(False, norm, "spike") if refused else self._not_finite([name for name, _ in named], norms, found_norm)
        if not scaler_before:
            return result
        if result.reason == "gradient_not_finite":
            return replace(result, loss_scale_search=scaler_before["cur_scale"] > self._loss_scaler.min_scale)
        vars(self._loss_scaler).update(scaler_before)  # the loss scale had no part in it
        return result

    def _global_norm(self, norms: Tensor) -> float:
        """The norm of the whole gradient, from those of this rank's pieces; the same number on every rank. Waits for the device."""
        square = norms.to(self.device).double().square().sum()
        if self.plan.world_size > 1:
            # A whole gradient, which every rank has, is the same on all of them; with the largest they decide alike even if it were not.
            dist.all_reduce(square, dist.ReduceOp.SUM if self._holds_pieces else dist.ReduceOp.MAX)
        return math.sqrt(float(square)) / self.loss_scale

    @property
    def _holds_pieces(self) -> bool:
        """Whether `_local_gradients` is a share of the gradient rather than, as in BF16_Optimizer and at stage 0, the whole of it."""
        return self.config.zero.stage > 0 and not hasattr(self._engine.optimizer, "fp32_groups_gradients")

    def _deepspeed_step(self, named: Sequence[tuple[str, Tensor]], refused: bool) -> tuple[bool, float]:
        """DeepSpeed's own step. It skips what is not finite on any rank, and a refused gradient is made so."""
        inner, offloaded = self._engine.optimizer, self.config.zero.offload == "cpu"
        spoilt = [grad for _, grad in named] if refused and not offloaded else []
        if refused and offloaded:  # it looks at the norms that were taken on the way to the host
            inner.norm_for_param_grads.update(dict.fromkeys(inner.norm_for_param_grads, torch.tensor(math.nan)))
        if spoilt:
            torch._foreach_mul_(spoilt, math.nan)
        self._engine.step()
        if spoilt:  # ZeRO-3 uses these buffers again, and does not write the padding at their end
            torch._foreach_zero_(spoilt)
        norm, applied = self._engine.get_global_grad_norm(), self._engine.was_step_applied()
        if not applied and offloaded:
            gradients = inner.averaged_gradients
            gradients.update(dict.fromkeys(gradients))  # else DeepSpeed adds the next step's to what it has just refused
        return applied, math.nan if norm is None else float(norm)

    def _checked_step(self, norms: Tensor, refused: bool) -> tuple[bool, float]:
        """The check, norm and clipping that DeepSpeed leaves out at stage 0 in fp32; gradients are the same on every rank."""
        norm = torch.linalg.vector_norm(norms)
        grad_norm = float(norm)
        if refused or not math.isfinite(grad_norm):
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

    def _gradient_buffers(self) -> Iterator[Tensor]:
        """What else holds gradients from micro-step to micro-step."""
        yield from (param.grad for param in self.names if param.grad is not None)
        yield from filter(torch.is_tensor, [getattr(self._engine.optimizer, "grad_partitions_flat_buffer", None)])  # ZeRO-3

    def _not_finite(self, names: Sequence[str], norms: Tensor, grad_norm: float) -> StepResult:
        """What was not finite, and on which parameter first; asks all ranks."""
        mine = {name for name, finite in zip(names, norms.isfinite().tolist(), strict=True) if not finite}
        bad_losses, bad_names = zip(*distributed.gather_objects((not bool(self._window_loss.isfinite()), mine)))
        bad = set().union(*bad_names)
        first = next((name for name in self.names.values() if name in bad), None)
        return StepResult(False, grad_norm, "loss_not_finite" if any(bad_losses) else "gradient_not_finite", first)

    # What it costs ------------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def timed(self, wanted: bool) -> Iterator[Parts]:
        """Around one step: gives what takes its parts and, if they are wanted, is a `Timeline`, in which `accumulate` is `forward` and
        `backward`, `step` is `optimizer` (the norm and the check of the gradient included), and collectives are `communication`."""
        if not wanted:
            yield untimed
            return
        timeline = self._parts = Timeline(self.device)
        try:
            with collectives_timed(timeline, _communication_backend()):
                yield timeline
        finally:
            timeline.end()
            self._parts = untimed

    def weights(self) -> Iterator[Tensor]:
        """The model's parameters and buffers, as this rank keeps them: under ZeRO-3 its share and, whole, those too small to be cut."""
        yield from self.model.buffers()
        for param in self.model.parameters():
            yield param
            yield from filter(torch.is_tensor, [getattr(param, "ds_tensor", None)])

    def communication_buffers(self) -> Iterator[Tensor]:
        """Buckets and staging buffers that DeepSpeed holds now: ZeRO-3 always, the others within an accumulation window alone."""
        inner = self._engine.optimizer
        for bucket in getattr(inner, "ipg_buckets", {}).values():
            yield from [bucket.buffer] if torch.is_tensor(bucket.buffer) else bucket.buffer or ()
        for name in ("temp_grad_buffer_for_cpu_offload", "temp_grad_buffer_for_gpu_offload"):
            yield from filter(torch.is_tensor, [getattr(inner, name, None)])

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


@contextlib.contextmanager
def _explained(micro_batch_size: int) -> Iterator[None]:
    """A pass that does not fit into memory, or cannot be compiled, in one line with the mend."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"a micro-batch of {micro_batch_size} does not fit into memory ({_gist(error)}); give train.micro_batch_size=auto, "
            "a smaller one, or train.activation_checkpointing=true"
        ) from error
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo.", "torch._inductor.")):
            raise
        raise UserError(f"torch.compile did not succeed ({_gist(error)}); give train.compile=false") from error


def _gist(error: Exception) -> str:
    """The first paragraph of its message."""
    return " ".join(str(error).strip().partition("\n\n")[0].split()).rstrip(". ")


def import_deepspeed() -> Any:
    """DeepSpeed, quiet, and on a CPU without the optional operator that it would compile for a minute."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops

    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__ = collections.defaultdict(bool)
    _import_muon()
    deepspeed.utils.logger.setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*`torch.distributed.*` is deprecated", category=FutureWarning)  # DeepSpeed's own calls
    return deepspeed


def _communication_backend() -> Any:
    """What DeepSpeed's collectives go through."""
    import deepspeed.comm

    return deepspeed.comm.comm.cdb


def _import_muon() -> None:
    """DeepSpeed's Muon, to which it compares every optimizer's type. It hands functions to torch.compile as soon as it is imported, which
    would import the compiler; nothing here calls them."""
    with patch.dict(os.environ, TORCHDYNAMO_DISABLE="1"), contextlib.suppress(ImportError):
        import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
