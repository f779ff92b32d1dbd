"""`train.micro_batch_size=auto`: the largest micro-batch that fits, tried once on the real engine and remembered.

Only sizes that share the global batch evenly are tried, so the global batch is exactly what was asked for.
"""

import dataclasses
import gc
import hashlib
import json
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

import pretrain
from pretrain import device_memory, distributed, rank_log
from pretrain.batch_plan import BatchPlan
from pretrain.config.schema import AUTO, Config
from pretrain.data.masking import max_predictions
from pretrain.data.micro_batches import micro_batches
from pretrain.engine import Engine
from pretrain.errors import UserError
from pretrain.metrics import last, read_metrics
from pretrain.model.acceleration import accelerate
from pretrain.model.build import Vocabulary, build_model
from pretrain.model.objective import Batch
from pretrain.optim import build_optimizer
from pretrain.user_path import user_path

MARGIN = {"cuda": 0.08, "cpu": 0.25}
"""Share of the free memory that is left alone: for fragments on a GPU, for other processes on a CPU."""

_TRUST = 4.0
"""Memory is foretold for sizes up to so many times the largest that was tried."""
_PATIENCE_SECONDS = 10.0
"""Once a trial takes longer, its line of memory against size is trusted to the end."""


def settle(config: Config, vocabulary: Vocabulary, metrics: Path) -> Config:
    """`config` with a number for `train.micro_batch_size`, the same on every rank. A collective call.

    A run that goes on keeps its own, as long as it has as many ranks; else the size that was found for such a run on such a device before
    is used; else it is found now, which takes some steps on made-up full sequences. Raises UserError where not even one sample fits.
    """
    if config.train.micro_batch_size != AUTO:
        return config
    memory, ranks = device_memory.of(distributed.device()), distributed.world_size()
    remembered = _Remembered(config, vocabulary, memory)
    size, origin = distributed.on_main(lambda: _of_the_run(metrics, ranks) or remembered.read() or (None, ""))
    if size is None:
        size, origin = _find(config, vocabulary, memory), "the largest that fits"
        distributed.on_main(lambda: remembered.write(size))
    if distributed.is_main():
        rank_log.tell_user(f"train.micro_batch_size=auto: {size}, {origin}")
    return dataclasses.replace(config, train=dataclasses.replace(config.train, micro_batch_size=size))


def largest_that_fits(candidates: Sequence[int], trial: Callable[[int], tuple[float, float]], budget_bytes: float) -> int | None:
    """The largest of `candidates` (ascending) that stays within the budget; None where the first does not.

    `trial(size)` gives the most bytes that were in use with a micro-batch of that size, and seconds. No size is tried that the line
    through the sizes before foretells to be too large, so that nothing runs out of memory on the way.
    """
    trials = 0
    fitting, peak, slope, trust = 0, 0.0, 0.0, _TRUST
    while True:
        larger = [size for size in candidates if size > fitting]
        if trials < 2:  # no line yet
            wanted = larger[0] if larger else fitting
        else:
            near = [size for size in larger if size <= trust * fitting] or larger[:1]
            wanted = max((size for size in near if peak + slope * (size - fitting) <= budget_bytes), default=fitting)
        if wanted == fitting or trust > _TRUST:
            return wanted
        new_peak, seconds = trial(wanted)
        if new_peak > budget_bytes:
            return fitting or None
        if fitting:
            slope = max(slope, (new_peak - peak) / (wanted - fitting))
        fitting, peak, trials = wanted, max(peak, new_peak), trials + 1
        if trials > 1 and seconds > _PATIENCE_SECONDS:
            trust = float("inf")


def _find(config: Config, vocabulary: Vocabulary, memory: device_memory.DeviceMemory) -> int:
    per_rank = BatchPlan.of(config.train, distributed.world_size()).gradient_accumulation_steps
    candidates = [size for size in range(1, per_rank + 1) if per_rank % size == 0]
    ranks_here = distributed.gather_objects(socket.gethostname()).count(socket.gethostname())
    budget = memory.budget_bytes(MARGIN[memory.device.type], ranks_here)
    worst_budget = -distributed.max_over_ranks({"budget": -budget})["budget"]
    trial = _Trial(config, vocabulary, memory)
    try:
        size = largest_that_fits(candidates, trial, worst_budget)
    finally:
        trial.end()
    if size is None:
        raise UserError(
            f"not even one sample fits into the {worst_budget / 2**30:.1f} GiB that are free for a rank; give "
            "train.activation_checkpointing=true, a higher zero.stage, zero.offload=cpu, or a smaller model"
        )
    return size


class _Trial:
    """The run's own engine on made-up samples, thrown away afterwards."""

    def __init__(self, config: Config, vocabulary: Vocabulary, memory: device_memory.DeviceMemory) -> None:
        self._config, self._vocabulary, self._memory = config, vocabulary, memory
        model = build_model(config, vocabulary)
        accelerate(model, config, torch.cuda.is_available())
        self._engine = Engine(model, build_optimizer(config.optimizer, model), config, BatchPlan.of(config.train, distributed.world_size()))

    def __call__(self, size: int) -> tuple[float, float]:
        """The most bytes in use over two micro-steps and an optimizer step, and its seconds: the largest over the ranks."""
        window = 2 * [_full_batch(self._config, self._vocabulary, size)]
        self._engine.plan = dataclasses.replace(self._engine.plan, micro_batch_size=size)
        self._memory.begin()
        seconds = seconds_of_a_step(self._engine, window)
        found = {"peak": float(self._memory.peak_bytes()), "seconds": seconds}
        worst = distributed.max_over_ranks(found)
        return worst["peak"], worst["seconds"]

    def end(self) -> None:
        self._engine.destroy()
        del self._engine
        gc.collect()
        self._memory.begin()


def seconds_of_a_step(engine: Engine, window: Sequence[Batch]) -> float:
    """Seconds of the first step that is applied: one that is skipped allocates no optimizer state. fp16 begins at a loss scale that may
    well be too large; each skip brings it down, at most to its least."""
    while True:
        begun = time.perf_counter()
        engine.accumulate(window)
        result = engine.step(lr=0.0)
        seconds = time.perf_counter() - begun
        if result.applied or not result.loss_scale_search:
            return seconds


def _full_batch(config: Config, vocabulary: Vocabulary, size: int) -> Batch:
    """A micro-batch as large as one can be: no sequence is short, no target is missing."""
    length = config.data.max_seq_length
    ids = np.random.default_rng(0).integers(0, vocabulary.size, (size, length))
    fields = {"input_ids": ids}
    if config.objective.kind == "clm":
        fields["labels"] = ids
    else:
        count = max_predictions(config.objective, length)
        fields |= {
            "token_type_ids": np.zeros_like(ids),
            "masked_positions": np.tile(np.arange(count), (size, 1)),
            "masked_labels": ids[:, :count],
        }
        fields["replaced_by_mask"] = np.ones((size, count), dtype=bool)
    if config.objective.kind == "mlm_nsp":
        fields |= {"attention_mask": np.ones_like(ids), "next_sentence_label": np.zeros(size, dtype=np.int64)}
    (batch,) = micro_batches(fields, size)
    return {name: torch.from_numpy(values) for name, values in batch.items()}


def _of_the_run(metrics: Path, ranks: int) -> tuple[int, str] | None:
    start = last(read_metrics(metrics), "start")
    plan = start and start.get("plan")
    return (plan["micro_batch_size"], "as when the run began") if plan and plan["ranks"] == ranks else None


class _Remembered:
    """What was found before, by everything that memory depends on, in `micro_batch_sizes.json` beside the prepared data."""

    def __init__(self, config: Config, vocabulary: Vocabulary, memory: device_memory.DeviceMemory) -> None:
        self._path = user_path(config.data.cache_dir, "data.cache_dir=") / "micro_batch_sizes.json"
        train, optimizer = config.train, asdict(config.optimizer)
        del optimizer["lr"]
        about = {
            "model": asdict(config.model),
            "objective": asdict(config.objective),
            "length": config.data.max_seq_length,
            "vocabulary": vocabulary.padded_size,
            "optimizer": optimizer,
            "zero": asdict(config.zero),
            "train": [train.global_batch_size, train.precision, train.grad_accum_dtype, train.compile, train.activation_checkpointing],
            "ranks": distributed.world_size(),
            "device": memory.description,
            "versions": [pretrain.__version__, torch.__version__],
        }
        self._key = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:24]

    def read(self) -> tuple[int, str] | None:
        size = self._all().get(self._key)
        return (size, f"as found before ({self._path})") if isinstance(size, int) else None

    def write(self, size: int) -> None:
        with suppress(OSError):  # it will be found again
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(json.dumps(self._all() | {self._key: size}, indent=1))
            temporary.replace(self._path)

    def _all(self) -> dict[str, int]:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
