"""The curves that runs have: every number of their `train` and `eval` lines, with a title and a unit."""

import re
from dataclasses import dataclass

import numpy as np

from pretrain.report.run import Run

_TITLES = {
    "eval/loss": "Validation loss",
    "eval/mlm_accuracy": "MLM accuracy",
    "eval/perplexity": "Validation perplexity",
    "eval/mask_token_loss": "Validation loss at [MASK] tokens",
    "eval/nsp_accuracy": "Next-sentence accuracy",
    "eval/mlm_loss": "Validation MLM loss",
    "train/loss": "Training loss",
    "train/lr": "Learning rate",
    "train/grad_norm": "Gradient norm",
    "train/update_rms": "Update RMS, in learning rates",
    "train/tokens_per_second": "Throughput",
    "train/mfu": "Model FLOPs utilisation",
}
_DEFAULT = ("eval/loss", "eval/mlm_accuracy", "eval/perplexity", "train/loss", "train/tokens_per_second")
_UNITS = {"eval/loss": "nats", "train/loss": "nats", "train/tokens_per_second": "tokens/s"}
_SHARE = re.compile(r"accuracy|mfu|share|fraction")
_MEMORY_PARTS = ("params", "weights", "masters", "grads", "optimizer", "communication")
"""params: weights and masters together, where a run does not tell them apart."""


@dataclass(frozen=True)
class Curve:
    """A number over the run, such as `train/loss`."""

    kind: str
    metric: str

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.metric}"

    @property
    def title(self) -> str:
        words = re.sub(r"_(bytes|seconds)$", "", self.metric).replace("_", " ")
        return _TITLES.get(self.key) or words[:1].upper() + words[1:] + (" (validation)" if self.kind == "eval" else "")

    @property
    def unit(self) -> str:
        """bytes, seconds, share (drawn in per cent), or words of its own."""
        named = re.search(r"_(bytes|seconds)$", self.metric)
        return named[1] if named else "share" if _SHARE.search(self.metric) else _UNITS.get(self.key, "")

    @property
    def is_shown_first(self) -> bool:
        return self.key in _DEFAULT

    @property
    def weight(self) -> float:
        """How finely it is kept beside the others where there is not room for all."""
        return 8.0 if self.kind == "eval" else 4.0 if self.metric == "loss" else 1.0

    def values(self, run: Run) -> np.ndarray | None:
        """float64 [lines], None where the run has none."""
        values = (run.evals if self.kind == "eval" else run.train).metrics.get(self.metric)
        return values if values is not None and np.isfinite(values).any() else None


def curves_of(runs: list[Run]) -> list[Curve]:
    """Those that at least one run has: what is shown first in its order, the others by name."""
    found = {Curve(kind, metric) for run in runs for kind, track in (("train", run.train), ("eval", run.evals)) for metric in track.metrics}
    found = {curve for curve in found if any(curve.values(run) is not None for run in runs)}
    return sorted(found, key=lambda curve: (_DEFAULT.index(curve.key) if curve.is_shown_first else len(_DEFAULT), curve.key))


def memory_parts(run: Run) -> dict[str, float]:
    """Most bytes of each part of the memory, by its name: parts that do not overlap, without the rest of the peak."""
    known = run.train.metrics
    parts = [
        part for part in _MEMORY_PARTS if f"memory_{part}_bytes" in known and not (part == "params" and "memory_weights_bytes" in known)
    ]
    return {part: largest for part in parts if (largest := run.train.largest(f"memory_{part}_bytes")) is not None}
