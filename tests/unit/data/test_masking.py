import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.config.schema import MlmConfig
from pretrain.data.masking import Masker, max_predictions
from tests.unit.data.corpora import synthetic

PREPARED = synthetic([[20_000]])
LENGTH = 64


def masked(maskable, seed=0, first_position=0, **objective):
    num_samples, length = maskable.shape
    tokens = np.arange(10, 10 + maskable.size).reshape(maskable.shape) % 20_000 + 10
    input_ids = np.where(maskable, tokens, PREPARED.special.sep).astype(np.int64)
    changed = input_ids.copy()
    masker = Masker(MlmConfig(**objective), length, PREPARED, seed)
    positions = np.arange(first_position, first_position + num_samples)
    return input_ids, changed, masker.apply(changed, maskable, maskable.sum(axis=1) + 3, positions)


@pytest.mark.parametrize("length, given_value, wanted", [(128, None, 20), (512, None, 77), (20, None, 3), (128, 7, 7), (8, 20, 8)])
def test_max_predictions(length, given_value, wanted):
    assert max_predictions(MlmConfig(mask_probability=0.15, max_predictions=given_value), length) == wanted


@settings(deadline=None, max_examples=60)
@given(data=st.data(), probability=st.floats(0.01, 0.99), largest=st.none() | st.integers(1, 200), seed=st.integers(0, 2**63 - 1))
def test_only_maskable_tokens_the_right_number_and_restorable(data, probability, largest, seed):
    rows = data.draw(st.lists(st.integers(1, 2**LENGTH - 1), min_size=1, max_size=5))
    maskable = np.array([[row >> column & 1 for column in range(LENGTH)] for row in rows], dtype=bool)
    original, changed, fields = masked(maskable, seed, mask_probability=probability, max_predictions=largest)
    used = fields["masked_labels"] != -100
    limit = max_predictions(MlmConfig(mask_probability=probability, max_predictions=largest), LENGTH)
    for row in range(len(rows)):
        columns = fields["masked_positions"][row][used[row]]
        candidates = int(maskable[row].sum())
        assert len(columns) == min(limit, max(1, round(probability * (candidates + 3))), candidates)
        assert np.all(np.diff(columns) > 0) and maskable[row][columns].all()
        assert np.array_equal(fields["masked_labels"][row][used[row]], original[row][columns])
        restored = changed[row].copy()
        restored[columns] = fields["masked_labels"][row][used[row]]
        assert np.array_equal(restored, original[row])
        assert np.array_equal(changed[row][columns] == PREPARED.special.mask, fields["replaced_by_mask"][row][used[row]])
    assert not fields["masked_positions"][~used].any() and not fields["replaced_by_mask"][~used].any()


def test_80_10_10_and_every_place_alike():
    maskable = np.ones((20_000, 40), dtype=bool)
    original, changed, fields = masked(maskable)
    used = fields["masked_labels"] != -100
    assert used.all()  # round(0.15 * 43) = 6 of 6
    now = np.take_along_axis(changed, fields["masked_positions"], axis=1)
    num_masked = used.sum()
    by_random = (now != fields["masked_labels"]) & ~fields["replaced_by_mask"]
    shares = np.array([fields["replaced_by_mask"].sum(), by_random.sum()]) / num_masked
    error = 4 * np.sqrt(np.array([0.8 * 0.2, 0.1 * 0.9]) / num_masked)
    assert np.all(np.abs(shares - [0.8, 0.1]) < error)
    counts = np.bincount(fields["masked_positions"].ravel(), minlength=40)
    assert np.abs(counts / num_masked - 1 / 40).max() < 4.5 * np.sqrt(1 / 40 / num_masked)
    random_tokens = now[by_random]
    assert random_tokens.min() >= 10 - 5 and not np.isin(random_tokens, PREPARED.special.ids()).any()
    assert np.histogram(random_tokens, bins=10, range=(0, PREPARED.vocab_size))[0].min() > 0.08 * len(random_tokens)


def test_masks_follow_from_seed_and_position_alone():
    maskable = np.ones((10, 50), dtype=bool)
    first, again, later = masked(maskable)[2], masked(maskable[:3], first_position=4)[2], masked(maskable, seed=1)[2]
    assert np.array_equal(first["masked_positions"][4:7], again["masked_positions"])
    assert np.array_equal(first["replaced_by_mask"][4:7], again["replaced_by_mask"])
    assert not np.array_equal(first["masked_positions"], later["masked_positions"])
    assert len(np.unique(first["masked_positions"], axis=0)) > 8
