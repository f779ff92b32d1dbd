import threading
import time

import numpy as np
import pytest

from pretrain.config.schema import ClmConfig, MlmConfig, MlmNspConfig
from pretrain.data.batches import make_batches
from pretrain.data.loader import evaluation_batches, windows
from pretrain.data.masking import max_predictions
from tests.unit.data.corpora import random_documents, synthetic
from tests.unit.data.padded_rows import padded_rows

PREDICTIONS = max_predictions(MlmNspConfig(), 32)
BATCHES = make_batches(synthetic(random_documents(60, seed=1)), "train", MlmNspConfig(), 32, seed=0)


def collect(num_steps, global_batch_size, micro_batch_size, world_size, first_position=0):
    """Every field of the first steps, by position, whatever the layout."""
    ranks = [windows(BATCHES, first_position, global_batch_size, micro_batch_size, rank, world_size) for rank in range(world_size)]
    parts = []
    for _ in range(num_steps):
        gathered = [next(rank) for rank in ranks]
        assert all(len(window) * micro_batch_size * world_size == global_batch_size for window in gathered)
        parts += [gathered[rank][step] for step in range(len(gathered[0])) for rank in range(world_size)]
    for rank in ranks:
        rank.close()
    rows = [padded_rows(part, PREDICTIONS) for part in parts]
    return {name: np.concatenate([part[name] for part in rows]) for name in rows[0]}


@pytest.mark.parametrize("micro_batch_size, world_size", [(24, 1), (2, 1), (1, 3), (4, 2), (12, 2)])
def test_samples_are_the_same_on_any_layout(micro_batch_size, world_size):
    wanted = BATCHES.batch(1000 + np.arange(3 * 24))
    given = collect(3, 24, micro_batch_size, world_size, first_position=1000)
    assert given.keys() == wanted.keys()
    for name, values in wanted.items():
        assert np.array_equal(given[name], values), name


def test_a_window_larger_than_one_call_is_whole():
    given = collect(1, 4096, 8, 1)
    assert np.array_equal(given["input_ids"], BATCHES.batch(np.arange(4096))["input_ids"])


def test_micro_batches_are_contiguous_tensors():
    iterator = windows(BATCHES, 0, 8, 2, 0, 2)
    window = next(iterator)
    iterator.close()
    assert len(window) == 2 and all(tensor.is_contiguous() for part in window for tensor in part.values())


def test_a_batch_that_does_not_divide_is_a_programming_error():
    with pytest.raises(ValueError, match="not a multiple"):
        windows(BATCHES, 0, 10, 4, 0, 1)


class Counting:
    num_anchors = 100

    def __init__(self, fail_at=None):
        self.calls, self.fail_at = 0, fail_at

    def batch(self, positions):
        self.calls += 1
        if self.calls == self.fail_at:
            raise RuntimeError("no more")
        return {"input_ids": positions[:, None].copy()}


def test_only_so_many_windows_are_made_ahead_and_closing_ends_the_thread():
    source = Counting()
    iterator = windows(source, 0, 4, 4, 0, 1, prefetch=2)
    next(iterator)
    time.sleep(0.3)
    assert source.calls <= 1 + 2 + 1
    iterator.close()
    assert not any(thread.name == "windows" and thread.is_alive() for thread in threading.enumerate())
    with pytest.raises(StopIteration):
        next(iterator)


def test_dropping_the_iterator_ends_the_thread():
    iterator = windows(Counting(), 0, 4, 4, 0, 1)
    thread = iterator._thread
    del iterator
    thread.join(timeout=5)
    assert not thread.is_alive()


def test_an_exception_in_the_thread_surfaces_after_the_good_windows():
    iterator = windows(Counting(fail_at=3), 0, 4, 4, 0, 1)
    assert [next(iterator)[0]["input_ids"][0, 0].item() for _ in range(2)] == [0, 4]
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no more"):
            next(iterator)


@pytest.mark.parametrize("objective", [MlmNspConfig(), MlmConfig(), ClmConfig()], ids=lambda objective: objective.kind)
@pytest.mark.parametrize("num_samples, micro_batch_size, world_size", [(10, 4, 1), (10, 4, 3), (10**6, 16, 2), (3, 8, 2), (8, 4, 2)])
def test_evaluation_shares_are_equal_and_targets_counted_once(objective, num_samples, micro_batch_size, world_size):
    batches = make_batches(synthetic(random_documents(20, seed=2)), "valid", objective, 32, seed=0)
    shares = [list(evaluation_batches(batches, num_samples, micro_batch_size, rank, world_size)) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    predictions = max_predictions(objective, 32) if "clm" != objective.kind else 0
    rows = [[padded_rows(part, predictions) for part in share] for share in shares]
    assert all(len(values) == micro_batch_size for share in rows for part in share for values in part.values())
    total = min(num_samples, batches.num_anchors)
    wanted = batches.batch(np.arange(total))
    dealt = {
        name: np.concatenate([rows[rank][step][name] for step in range(len(rows[0])) for rank in range(world_size)]) for name in wanted
    }
    for name, values in wanted.items():
        assert np.array_equal(dealt[name][:total], values), name
    fillers = {name: values[total:] for name, values in dealt.items()}
    for name in ("labels", "masked_labels", "next_sentence_label"):
        assert name not in fillers or bool((fillers[name] == -100).all())
    assert "replaced_by_mask" not in fillers or not fillers["replaced_by_mask"].any()
