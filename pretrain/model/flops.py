"""Floating-point operations of training, by stated formulae, and the share of the hardware's peak that a run reaches (MFU).

A forward and backward pass costs 6 operations per weight and token in the matrix products, and 12 x layers x hidden x length per
token in attention (Chowdhery et al., "PaLM", 2022, appendix B). Neither recomputation nor padding is counted.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pretrain.config.schema import Config

if TYPE_CHECKING:
    from pretrain.model.objective import Batch

PEAK_FLOPS_PER_SECOND: dict[tuple[str, ...], float] = {
    ("V100", "PCIE"): 112e12,
    ("V100",): 125e12,
    ("A10",): 125e12,
    ("A30",): 165e12,
    ("A40",): 149.7e12,
    ("A100",): 312e12,
    ("RTX", "4090"): 165.2e12,
    ("L4",): 121e12,
    ("L40",): 181e12,
    ("L40S",): 362e12,
    ("H100", "PCIE"): 756e12,
    ("H100", "NVL"): 835e12,
    ("H100",): 989e12,
    ("GH200",): 989e12,
    ("H200", "NVL"): 835e12,
    ("H200",): 989e12,
    ("B200",): 2250e12,
}
"""Peak of dense matrix products in bf16 (V100: fp16) that are added up in fp32, from NVIDIA's data sheets, by words of the device's name,
whatever their case; the first entry whose words are all there counts. For other devices and precisions there is train.device_peak_tflops."""


@dataclass(frozen=True)
class Work:
    """What a model has to look at.

    Attributes:
        tokens: without padding.
        pairs: of tokens of one sequence, over which attention runs; a causal model's are counted as if it saw both ways.
        targets: positions at which the head runs.
    """

    tokens: int = 0
    pairs: int = 0
    targets: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.tokens + other.tokens, self.pairs + other.pairs, self.targets + other.targets)


def work_of(batch: "Batch") -> Work:
    """A micro-batch, on the host."""
    targets = len(batch["masked_labels"]) if "masked_labels" in batch else batch["labels"].numel()
    if "cu_seqlens" in batch:
        lengths = batch["cu_seqlens"].diff().long()
        return Work(int(lengths.sum()), int(lengths.square().sum()), targets)
    samples, length = batch["input_ids"].shape
    return Work(samples * length, samples * length * length, targets)


def flops(config: Config, vocabulary_size: int, work: Work) -> float:
    """Operations of one forward and backward pass over `work`.

    BERT's head runs on the masked positions alone (240.6 GFLOP for a full sequence of BERT-Large at length 128); GPT-2's on all of them
    (0.860 GFLOP per token for the 124M model at length 1024), with its position embedding counted too.
    """
    model = config.model
    hidden, layers = model.hidden_size, model.num_layers
    body = 6 * 12 * layers * hidden * hidden * work.tokens + 12 * layers * hidden * work.pairs
    if config.objective.kind == "clm":
        return body + 6 * (vocabulary_size + model.max_positions) * hidden * work.targets
    return body + 6 * (hidden * hidden + hidden * vocabulary_size) * work.targets


def peak_flops_per_second(device_name: str) -> float | None:
    """The device's dense bf16 peak; None where it is not in the table."""
    words = set(re.split(r"[ -]", device_name.upper()))
    if words & {"MIG", "LAPTOP", "D"}:  # a part of the device, or less than it
        return None
    return next((peak for name, peak in PEAK_FLOPS_PER_SECOND.items() if words.issuperset(name)), None)


class Utilisation:
    """The share of the device's peak (train.device_peak_tflops, else by its name) that the model's operations of a run amount to, on this
    rank (the others have as many samples)."""

    def __init__(self, config: Config, vocabulary_size: int, device_name: str) -> None:
        self._config, self._vocabulary_size = config, vocabulary_size
        given = config.train.device_peak_tflops
        self._peak = peak_flops_per_second(device_name) if given is None else 1e12 * given
        self._work, self._steps = Work(), 0

    def add(self, window: Sequence["Batch"]) -> None:
        """One step's micro-batches."""
        if self._peak is None:
            return
        self._work = sum(map(work_of, window), start=self._work)
        self._steps += 1

    def read(self, step_seconds: float) -> float | None:
        """Over the steps since the last reading, which took `step_seconds` each; None where the device's peak is not known."""
        if self._peak is None:
            return None
        per_step = flops(self._config, self._vocabulary_size, self._work) / max(1, self._steps)
        self._work, self._steps = Work(), 0
        return per_step / step_seconds / self._peak
