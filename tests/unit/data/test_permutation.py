import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.data.permutation import permute
from pretrain.data.random_numbers import Stream, integers_below, random_bits, uniform

SEEDS = st.integers(0, 2**63 - 1)


@settings(deadline=None, max_examples=100)
@given(size=st.integers(1, 3000), seed=SEEDS, epoch=st.integers(0, 2**40))
def test_a_bijection(size, seed, epoch):
    sent_to = permute(np.arange(size), size, seed, np.full(size, epoch))
    assert np.array_equal(np.sort(sent_to), np.arange(size))


@settings(deadline=None, max_examples=50)
@given(size=st.integers(1, 2**50), seed=SEEDS, data=st.data())
def test_an_index_alone_goes_where_it_goes_among_others(size, seed, data):
    indices = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20, unique=True)))
    epochs = np.arange(len(indices)) % 3
    together = permute(indices, size, seed, epochs)
    assert together.min() >= 0 and together.max() < size
    alone = [permute(indices[i : i + 1], size, seed, epochs[i : i + 1])[0] for i in range(len(indices))]
    assert together.tolist() == alone


def test_epochs_and_seeds_give_different_orders_without_visible_structure():
    size, indices = 10_007, np.arange(10_007)
    orders = [permute(indices, size, seed, np.full(size, epoch)) for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    for index, order in enumerate(orders):
        assert abs(np.corrcoef(indices, order)[0, 1]) < 0.05
        assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05
        for other in orders[:index]:
            assert (order == other).sum() < 10


def test_every_order_of_few_things_occurs():
    epochs = np.repeat(np.arange(6000), 3)
    orders = permute(np.tile(np.arange(3), 6000), 3, 0, epochs).reshape(6000, 3)
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 6 and counts.min() > 850 and counts.max() < 1150


def test_draws_are_uniform_and_differ_by_seed_position_stream_and_index():
    positions = np.arange(100_000)
    bits = random_bits(3, positions, Stream.PAIR, 4)
    assert np.array_equal(bits[5:6], random_bits(3, positions[5:6], Stream.PAIR, 4))
    assert len(np.unique(bits)) == bits.size
    assert not np.intersect1d(bits, random_bits(3, positions, Stream.REPLACEMENT_KIND, 4)).size
    assert not np.intersect1d(bits, random_bits(4, positions, Stream.PAIR, 4)).size
    for draws in uniform(bits).T:
        counts = np.histogram(draws, bins=20, range=(0, 1))[0]
        assert ((counts - 5000) ** 2 / 5000).sum() < 60  # chi-square, 19 degrees of freedom
    set_bits = (bits[:, :1] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(set_bits.mean(axis=0) - 0.5).max() < 0.01
    assert np.abs(np.corrcoef(uniform(bits).T) - np.eye(4)).max() < 0.02


def test_integers_stay_below_their_bound():
    drawn = integers_below(random_bits(0, np.arange(7000), Stream.PAIR), np.array(7))
    assert np.bincount(drawn, minlength=7).min() > 850 and drawn.max() == 6
