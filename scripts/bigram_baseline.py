"""Perplexity of unigram and bigram models on a prepared corpus: python scripts/bigram_baseline.py PREPARED_FOLDER

Both are counted on the training tokens and scored on the validation tokens, on the very stream that a GPT-2 is evaluated on. The bigram
model is interpolated with the unigram model, the weight chosen on the last tenth of the training tokens; the unigram model adds one.
"""

import math
import sys
from pathlib import Path

import numpy as np

from pretrain.data.prepared import open_prepared


def main(folder: str) -> None:
    prepared = open_prepared(Path(folder))
    train, valid = np.asarray(prepared.train.tokens, dtype=np.int64), np.asarray(prepared.valid.tokens, dtype=np.int64)
    size, cut = prepared.vocab_size, len(train) * 9 // 10
    weight = max(np.linspace(0.05, 0.95, 19), key=lambda weight: score(train[:cut], train[cut:], size, weight))
    print(f"unigram perplexity {math.exp(-score(train, valid, size, 0.0)):.2f}")
    print(f"bigram perplexity {math.exp(-score(train, valid, size, weight)):.2f} (weight of the bigram counts {weight:.2f})")
    print(f"{len(train):,} training tokens, {len(valid):,} validation tokens, vocabulary {size:,}")


def score(train: np.ndarray, held_out: np.ndarray, size: int, weight: float) -> float:
    """Mean log-probability of `held_out[1:]` given the token before each, natural logarithm."""
    unigram = (np.bincount(train, minlength=size) + 1.0) / (len(train) + size)
    pairs, counts = np.unique(train[:-1] * size + train[1:], return_counts=True)
    before = np.bincount(train[:-1], minlength=size)
    keys = held_out[:-1] * size + held_out[1:]
    at = np.minimum(np.searchsorted(pairs, keys), len(pairs) - 1)
    found = np.where(pairs[at] == keys, counts[at], 0) / np.maximum(before[held_out[:-1]], 1)
    weights = np.where(before[held_out[:-1]] > 0, weight, 0.0)
    return float(np.log(weights * found + (1 - weights) * unigram[held_out[1:]]).mean())


if __name__ == "__main__":
    main(*sys.argv[1:])
