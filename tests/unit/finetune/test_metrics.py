"""The metrics equal those of scikit-learn and scipy, and of SQuAD those of its definition."""

import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn

from pretrain.finetune import metrics

RANDOM = np.random.default_rng(0)
CLASSES = [
    *((RANDOM.integers(0, 2, size), RANDOM.integers(0, 2, size)) for size in (1, 2, 3, 10, 277, 1000)),
    *((first, (first ^ (RANDOM.random(200) < share))) for share in (0.01, 0.3, 0.9) for first in [RANDOM.integers(0, 2, 200)]),
    *((np.full(5, first), np.full(5, second)) for first in (0, 1) for second in (0, 1)),
    (np.array([0, 1, 1, 0]), np.full(4, 1)),
    (np.full(4, 0), np.array([0, 1, 1, 0])),
]
SCORES = [
    *((RANDOM.normal(size=size), RANDOM.normal(size=size)) for size in (2, 3, 50, 1500)),
    *((RANDOM.integers(0, 6, 100) * 1.0, RANDOM.integers(0, 4, 100) / 3) for _ in range(5)),  # ties
    (np.arange(9.0), np.arange(9.0) ** 3),
    (np.arange(9.0), -np.arange(9.0)),
    (1e6 + RANDOM.normal(size=50), 1e-6 * RANDOM.normal(size=50)),
    (np.full(7, 2.5), RANDOM.normal(size=7)),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("labels", "predictions"), CLASSES)
def test_classes_are_scored_as_by_scikit_learn(labels: np.ndarray, predictions: np.ndarray) -> None:
    pairs = [
        (metrics.accuracy, sklearn.accuracy_score),
        (metrics.f1, lambda *pair: sklearn.f1_score(*pair, zero_division=0)),
        (metrics.matthews, sklearn.matthews_corrcoef),
    ]
    for ours, theirs in pairs:
        assert ours(labels, predictions) == pytest.approx(theirs(labels, predictions), abs=1e-12)
        assert ours(labels.tolist(), predictions) == ours(labels, predictions)


def test_accuracy_of_three_classes() -> None:
    labels, predictions = RANDOM.integers(0, 3, 500), RANDOM.integers(0, 3, 500)
    assert metrics.accuracy(labels, predictions) == sklearn.accuracy_score(labels, predictions)


@pytest.mark.parametrize(("labels", "predictions"), SCORES)
def test_correlations_are_scipy_s_undefined_ones_too(labels: np.ndarray, predictions: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        for ours, theirs in ((metrics.pearson, stats.pearsonr), (metrics.spearman, stats.spearmanr)):
            found, wanted = ours(labels, predictions), theirs(labels, predictions).statistic
            assert found == pytest.approx(wanted, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("metric", [metrics.pearson, metrics.spearman, metrics.matthews])
def test_a_constant_prediction_is_worth_nothing_and_one_that_is_no_number_is_none(metric) -> None:
    labels = np.array([0.0, 1.0, 1.0, 0.0])
    assert metric(labels, np.full(4, 1.0)) == metric(labels, np.full(4, 0.1, dtype=np.float32)) == 0.0
    for number in (0.1, np.nan) if metric is not metrics.matthews else ():
        assert np.isnan(metric(labels, [number, 0.2, 0.3, np.nan]))


ANSWERS = [
    ("The Cat", ["cat"], 1, 1.0),
    ("a cat, an owl!", ["cat owl"], 1, 1.0),
    ("  the   cat\n", ["Cat."], 1, 1.0),
    ("black cat", ["cat"], 0, 2 / 3),  # precision 1/2, recall 1
    ("black cat", ["dog", "the black dog", "Black cat?"], 1, 1.0),
    ("cat cat dog", ["cat dog dog"], 0, 2 / 3),  # common: cat once, dog once, of three and three
    ("", ["cat"], 0, 0.0),
    ("the", ["a"], 1, 0.0),  # nothing is left of either: the published script gives no F1 for that
    ("theatre", ["atre"], 0, 0.0),  # articles are whole words
    ("U.S.A", ["USA"], 1, 1.0),
    ("\u201ccat\u201d", ["cat"], 0, 0.0),  # only ASCII punctuation goes
]


@pytest.mark.parametrize(("prediction", "answers", "exact", "f1"), ANSWERS)
def test_answers_are_scored_by_squad_s_definition(prediction: str, answers: list[str], exact: int, f1: float) -> None:
    assert metrics.exact_match(prediction, answers) == exact
    assert metrics.answer_f1(prediction, answers) == pytest.approx(f1)
