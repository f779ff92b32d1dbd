"""The usual metrics of GLUE and SQuAD, as fractions (not percent): NaN where a metric is not defined."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

# GLUE -----------------------------------------------------------------------------------------------------------------------------


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Share of the predictions that are right."""
    return float(np.mean(np.equal(labels, predictions)))


def f1(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Of class 1 among two: harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN); 0 where class 1 occurs nowhere."""
    true, found = np.asarray(labels) == 1, np.asarray(predictions) == 1
    total = true.sum() + found.sum()
    return float(2 * (true & found).sum() / total) if total else 0.0


def matthews(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Matthews' correlation (1975) of two classes; 0 where labels or predictions are all the same."""
    true, found = np.asarray(labels) == 1, np.asarray(predictions) == 1
    if true.all() or found.all() or not (true.any() and found.any()):
        return 0.0
    return pearson(true, found)


def pearson(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Correlation of two rows of numbers; NaN where the labels are constant. Where the predictions are it is 0, although it is not
    defined: a model that has collapsed is worth nothing, as with `matthews`, and is not left out of a mean."""
    first, second = (np.asarray(values, dtype=np.float64) for values in (labels, predictions))
    if np.ptp(first) == 0:
        return float("nan")
    if np.ptp(second) == 0:
        return 0.0
    first, second = first - first.mean(), second - second.mean()
    return float(np.clip((first / np.linalg.norm(first)) @ (second / np.linalg.norm(second)), -1, 1))


def spearman(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Correlation of the ranks, where those that tie share their mean rank; constant rows as with `pearson`."""
    return pearson(_ranks(labels), _ranks(predictions))


def _ranks(values: ArrayLike) -> np.ndarray:
    """From 1; all NaN where a value is."""
    if np.isnan(values).any():
        return np.full(np.shape(values), np.nan)
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[place]


GLUE: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
"""name -> metric(labels, predictions)"""

# SQuAD v1.1, as its published evaluation script has it (Rajpurkar et al., 2016) ---------------------------------------------------------


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 where the prediction is one of the answers, both normalised; else 0."""
    return float(any(normalised(prediction) == normalised(answer) for answer in answers))


def answer_f1(prediction: str, answers: Sequence[str]) -> float:
    """Overlap in words with the answer that is most alike, all normalised."""
    return max(_overlap(prediction, answer) for answer in answers)


def normalised(answer: str) -> str:
    """Lower case, without ASCII punctuation, articles and superfluous spaces."""
    text = "".join(character for character in answer.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _overlap(prediction: str, answer: str) -> float:
    found, true = normalised(prediction).split(), normalised(answer).split()
    common = (Counter(found) & Counter(true)).total()
    return 2 * common / (len(found) + len(true)) if common else 0.0
