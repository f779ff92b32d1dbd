"""Validation: the model's loss and scores on held-out text, with masks that are the same every time and in every run."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from pretrain import distributed
from pretrain.config.schema import Config
from pretrain.data.batches import Batches
from pretrain.data.loader import evaluation_batches
from pretrain.data.masking import IGNORED_LABEL
from pretrain.data.prepared import Prepared

if TYPE_CHECKING:
    from pretrain.engine import Engine

MicroBatch = dict[str, Tensor]


def evaluate(engine: "Engine", batches: Batches, config: Config) -> dict[str, float]:
    """Scores over the first `train.eval_samples` validation samples, the same on every rank; losses in nats per target.

    BERT: loss, mlm_loss, mlm_accuracy (argmax at the masked positions), mask_token_loss (only positions that became [MASK]: those
    left as they were can be copied) and, with sentence pairs, nsp_accuracy. GPT-2: loss and perplexity.
    """
    dealt = evaluation_batches(
        batches, config.train.eval_samples, config.train.micro_batch_size, distributed.rank(), distributed.world_size()
    )
    return scores(distributed.sum_over_ranks(add_up(dealt, engine.valid_counts, engine.evaluate)))


def add_up(
    dealt: Iterable[MicroBatch], count: Callable[[MicroBatch], Mapping[str, int]], measure: Callable[[MicroBatch], Mapping[str, Tensor]]
) -> dict[str, float]:
    """The sums of all micro-batches, and the counts of their targets as NAME_count."""
    totals: dict[str, float] = {}
    for batch in dealt:
        counts = {f"{name}_count": float(targets) for name, targets in count(batch).items()}
        sums = {name: float(value) for name, value in measure(batch).items()}
        for name, value in (counts | sums).items():
            totals[name] = totals.get(name, 0.0) + value
    return totals


def scores(totals: dict[str, float]) -> dict[str, float]:
    """The reported scores from sums and counts over the whole evaluation."""
    if "clm" in totals:
        loss = totals["clm"] / totals["clm_count"]
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
    mlm = totals["mlm"] / totals["mlm_count"]
    found = {
        "loss": mlm,
        "mlm_loss": mlm,
        "mlm_accuracy": totals["mlm_correct"] / totals["mlm_count"],
        "mask_token_loss": totals["mask_token_loss"] / totals["mask_token_count"] if totals["mask_token_count"] else math.nan,
    }
    if "nsp" in totals:
        found["loss"] += totals["nsp"] / totals["nsp_count"]
        found["nsp_accuracy"] = totals["nsp_correct"] / totals["nsp_count"]
    return found


def unigram_loss(prepared: Prepared, batches: Batches, config: Config) -> float:
    """Cross-entropy (nats) of the evaluation's targets under the training text's unigram frequencies: what a model that has learnt
    nothing but how often each token occurs would score. For BERT the targets are those that became [MASK]."""
    log_probs = unigram_log_probs(prepared, batches.mixture.shares)
    total, count = 0.0, 0
    for batch in evaluation_batches(batches, config.train.eval_samples, config.train.micro_batch_size, 0, 1):
        if "labels" in batch:
            targets = batch["labels"].numpy()
        else:
            targets = np.where(batch["replaced_by_mask"].numpy(), batch["masked_labels"].numpy(), IGNORED_LABEL)
        targets = targets[targets != IGNORED_LABEL]
        total -= float(log_probs[targets].sum())
        count += targets.size
    return total / count if count else math.nan


def unigram_log_probs(prepared: Prepared, shares: np.ndarray) -> np.ndarray:
    """Natural logarithm of each token's frequency in the training text, the sources taken by their `shares` (float64 [sources]) and one
    added to every count; float64 [vocab_size]."""
    counts = [source.unigram_counts + 1.0 for source in prepared.sources]
    return np.log(sum(share * count / count.sum() for share, count in zip(shares, counts, strict=True)))
