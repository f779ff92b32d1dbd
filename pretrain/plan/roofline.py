"""How long one optimizer step takes at least, and at most, by a roofline: operations, bytes sent and bytes of memory over stated rates.

Nothing here is measured on many GPUs: it says which of the three a step is made of, and what an optimizer can change about it. Not
counted: the latency of a collective (the plan prints how many the optimizer makes), data, host, evaluation, checkpoints.
"""

from dataclasses import dataclass

import torch

from came.momentum import DTYPES
from came.rules import Rule
from pretrain.config.schema import Config
from pretrain.model.flops import Work, flops
from pretrain.plan.activations import targets_per_sample
from pretrain.plan.communication import Communication
from pretrain.plan.deepspeed import Zero

STREAMED_BYTES = {
    "CAME": 32,
    "AdamW": 28,
    "LAMB": 40,
    "Adafactor": 24,
    "Adafactor with momentum": 32,
    "SM3": 24,
    "SM3 without momentum": 16,
}
"""Bytes per parameter that an update moves through memory if each of its passes reads and writes every tensor once, all of them fp32, by
the rules' names. AdamW reads p, g, m, v and writes p, m, v in one pass; LAMB reads them and writes m, v, then reads p, m, v and writes p;
CAME reads g, then g, m, then g, m, p and writes m, p; Adafactor reads g, p, then g, then g, p and writes p; SM3 reads g, then g, m, p and
writes m, p; momentum is read and written beside p. PyTorch's single operations move several times as much."""
_MOMENTUM_PASSES = 3
"""CAME reads the momentum twice and writes it once."""


def streamed_bytes(rule: Rule) -> int:
    """Bytes per parameter of one update, `momentum_dtype` included; scales of 8-bit momentum are too few to count."""
    saved = torch.float32.itemsize - DTYPES[rule.momentum_dtype].itemsize
    return STREAMED_BYTES[rule.name] - _MOMENTUM_PASSES * saved


@dataclass(frozen=True)
class Hardware:
    """One GPU of many. The defaults are an H200's in a DGX H200, from NVIDIA's data sheets of 2024: 989 dense bf16 or fp16 TFLOP/s and 67
    in fp32, NVLink 900 GB/s in both directions together, one 400 Gb/s InfiniBand adapter for each GPU; but its memory's 4.3 TB/s are what
    a copy reached in November 2026 (the data sheet: 4.8)."""

    peak_tflops: float | None = None
    """Dense operations in the run's precision, 10^12 per second; None: an H200's."""
    mfu: float = 0.4
    """Share of the peak that forward and backward passes reach."""
    gpus_per_node: int = 8
    intra_node_gbps: float = 450.0
    """10^9 bytes per second and direction that a GPU sends to others of its node."""
    network_gbps: float = 50.0
    """The same to other nodes; the slowest link of a ring sets its pace."""
    memory_tbps: float = 4.3
    """10^12 bytes per second of the GPU's own memory."""

    def tflops(self, precision: str) -> float:
        return self.peak_tflops or (67.0 if precision == "fp32" else 989.0)

    def send_bytes_per_second(self, world_size: int) -> float:
        return 1e9 * (self.intra_node_gbps if world_size <= self.gpus_per_node else self.network_gbps)


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step."""

    compute_seconds: float
    communication_seconds: float
    """Of gradients and weights."""
    reductions_seconds: float
    """Of the optimizer's own all-reduces, their bytes alone."""
    update_seconds: float | None
    """Of the optimizer, through the GPU's memory; None with offload, where it is the host's, whose rates nobody has stated."""

    @property
    def overlapped_seconds(self) -> float | None:
        """If gradients and weights travel behind the computation; the update and its reductions have to wait for the gradient. None where
        the update's time is not known."""
        if self.update_seconds is None:
            return None
        return max(self.compute_seconds, self.communication_seconds) + self.reductions_seconds + self.update_seconds

    @property
    def serial_seconds(self) -> float | None:
        """If nothing overlaps. None where the update's time is not known."""
        if self.update_seconds is None:
            return None
        return self.compute_seconds + self.communication_seconds + self.reductions_seconds + self.update_seconds


def step_time(
    config: Config,
    vocabulary_rows: int,
    rule: Rule,
    zero: Zero,
    share: int,
    sent: Communication,
    samples: int,
    world_size: int,
    hardware: Hardware,
) -> StepTime:
    """Of a step in which this rank computes `samples` full sequences and updates `share` elements."""
    length = config.data.max_seq_length
    work = Work(samples * length, samples * length * length, samples * targets_per_sample(config))
    operations = flops(config, vocabulary_rows, work)
    if config.train.activation_checkpointing:
        operations += flops(config, vocabulary_rows, Work(work.tokens, work.pairs, 0)) / 3  # the layers' forward pass once more
    rate = hardware.send_bytes_per_second(world_size)
    moved = share * (streamed_bytes(rule) + (zero.weight_bytes if zero.precision != "fp32" else 0))
    return StepTime(
        compute_seconds=operations / (1e12 * hardware.tflops(config.train.precision) * hardware.mfu),
        communication_seconds=(sent.gradients_sent_bytes + sent.weights_sent_bytes) / rate,
        reductions_seconds=sent.optimizer_sent_bytes / rate,
        update_seconds=None if zero.offload else moved / (1e12 * hardware.memory_tbps),
    )
