from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from pretrain.config.schema import ClmConfig, MixtureDataConfig, MlmConfig, MlmNspConfig, PreparedDataConfig
from pretrain.data.batches import make_batches
from pretrain.data.mixture import PATTERN_LENGTH, Mixture, mixture_of
from pretrain.errors import UserError
from pretrain.validation import unigram_log_probs
from tests.unit.data.corpora import random_documents, synthetic

THREE_TO_ONE = Mixture({"wiki": 3, "books": 1})
POSITIONS = np.arange(3 * PATTERN_LENGTH + 17)


def two_sources(weights=(3.0, 1.0)):
    """Two synthetic sources in one corpus; the tokens of the second are told by their ids."""
    wiki, books = (synthetic(random_documents(40, seed=seed)) for seed in (1, 2))
    first = wiki.sources[0]
    shift = len(first.train.tokens)
    second = books.sources[0]
    second = replace(second, train=replace(second.train, tokens=second.train.tokens + shift), valid=second.valid)
    sources = (replace(first, name="wiki", weight=weights[0]), replace(second, name="books", weight=weights[1]))
    return replace(wiki, sources=sources, vocab_size=10 + shift + len(second.train.tokens))


@pytest.mark.parametrize("weights", [{"a": 1}, {"a": 3, "b": 1}, {"a": 0.2, "b": 0.3, "c": 0.5}, {"a": 1, "b": 1000}])
def test_every_draw_of_every_source_is_dealt_once_and_in_order(weights):
    mixture = Mixture(weights)
    sources, draws = mixture.deal(POSITIONS)
    for number in range(len(weights)):
        assert np.array_equal(draws[sources == number], np.arange((sources == number).sum()))
    assert mixture.drawn(len(POSITIONS)) == [(sources == number).sum() for number in range(len(weights))]
    assert mixture.drawn(0) == [0] * len(weights)
    assert mixture.shares == pytest.approx([weight / sum(weights.values()) for weight in weights.values()], abs=1 / PATTERN_LENGTH)


def test_every_stretch_has_the_proportions():
    sources, _ = THREE_TO_ONE.deal(POSITIONS)
    assert all((sources[start : start + 4] == 1).sum() == 1 for start in range(0, PATTERN_LENGTH, 4))


def test_a_position_is_dealt_alike_whoever_asks():
    shuffled = np.random.default_rng(0).permutation(POSITIONS)
    for part, whole in zip(THREE_TO_ONE.deal(shuffled), THREE_TO_ONE.deal(POSITIONS)):
        assert np.array_equal(part, whole[shuffled])


def test_positions_within_the_sources_lengths():
    for lengths in ([30, 10], [30, 9], [7, 100], [9000, 3000]):
        positions = THREE_TO_ONE.positions_within(lengths)
        assert all(drawn <= length for drawn, length in zip(THREE_TO_ONE.drawn(positions), lengths))
        assert any(drawn > length for drawn, length in zip(THREE_TO_ONE.drawn(positions + 4), lengths))


def test_a_weight_that_would_never_be_drawn_is_refused():
    with pytest.raises(UserError, match="the weight 1 of b is less than one sample in 4096 of the mixture; give it more"):
        Mixture({"a": 100_000, "b": 1})


@pytest.mark.parametrize("objective", [MlmNspConfig(), MlmConfig(), ClmConfig()], ids=lambda objective: objective.kind)
def test_samples_come_whole_from_their_source_and_cover_its_epoch(objective):
    prepared = two_sources()
    boundary = 10 + len(prepared.sources[0].train.tokens)
    batches = make_batches(prepared, "train", objective, 32, seed=5)
    num_positions = 4 * max(batches.num_anchors, 200)
    fields = batches.batch(np.arange(num_positions))
    ids = fields["labels"] if "labels" in fields else fields["masked_labels"]
    of_second = (ids >= boundary).sum(axis=1), ((ids >= 10) & (ids < boundary)).sum(axis=1)
    expected = batches.mixture.deal(np.arange(num_positions))[0]
    assert (of_second[1][expected == 1] == 0).all() and (of_second[0][expected == 0] == 0).all()
    assert batches.drawn(num_positions) == {"wiki": num_positions * 3 // 4, "books": num_positions // 4}
    epochs = batches.epochs(num_positions)
    assert epochs["wiki"] > 0 and epochs["books"] > 0
    apart = batches.batch(np.arange(100, 140))
    for name, values in apart.items():
        assert np.array_equal(values, fields[name][100:140]), name


def test_each_source_is_shuffled_through_once_before_it_begins_anew():
    prepared = two_sources()
    batches = make_batches(prepared, "train", ClmConfig(), 32, seed=5)
    boundary = 10 + len(prepared.sources[0].train.tokens)
    starts = batches.batch(np.arange(batches.num_anchors))["input_ids"][:, 0]
    assert max(Counter(starts.tolist()).values()) == 1
    drawn = batches.drawn(batches.num_anchors)
    assert ((starts >= boundary).sum(), (starts < boundary).sum()) == (drawn["books"], drawn["wiki"])


def test_weights_come_from_the_run_or_else_from_the_preparation():
    prepared = two_sources()
    assert mixture_of(prepared).signature == ":3072,1024"
    assert mixture_of(prepared, PreparedDataConfig(weights={"books": 1.0, "wiki": 1.0})).signature == ":2048,2048"
    data = MixtureDataConfig(mixture={name: {"paths": ["x"], "weight": weight} for name, weight in (("wiki", 7), ("books", 1))})
    assert mixture_of(prepared, data).signature == ":3584,512"
    with pytest.raises(UserError, match="data.weights names books, web, but the prepared corpus holds wiki, books; name these, or none"):
        mixture_of(prepared, PreparedDataConfig(weights={"books": 1.0, "web": 1.0}))
    assert mixture_of(synthetic([[5]])).signature == ""


def test_token_frequencies_are_mixed_by_the_shares():
    prepared = two_sources()
    counts = np.zeros(prepared.vocab_size, dtype=np.int64)
    sources = [replace(source, unigram_counts=counts.copy()) for source in prepared.sources]
    sources[0].unigram_counts[10], sources[1].unigram_counts[11] = 10**9, 10**3
    found = np.exp(unigram_log_probs(replace(prepared, sources=tuple(sources)), np.array([0.75, 0.25])))
    assert found.sum() == pytest.approx(1)
    assert found[10] == pytest.approx(0.75, rel=0.01) and found[10] > found[11] > found[12]
