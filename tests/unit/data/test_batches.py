import numpy as np
import pytest

from pretrain.config.schema import ClmConfig, MlmConfig, MlmNspConfig
from pretrain.data.batches import make_batches
from pretrain.data.prepared import open_prepared
from pretrain.data.tokenizer import load_tokenizer
from pretrain.errors import UserError
from tests.unit.data.corpora import random_documents, synthetic

LENGTH = 32
DOCUMENTS = random_documents(60, seed=1)
PREPARED = synthetic(DOCUMENTS)
OBJECTIVES = [MlmNspConfig(), MlmConfig(), ClmConfig()]
PAD, CLS, SEP = 0, 2, 3


def restored(fields):
    """input_ids with the original tokens back in their places."""
    ids = fields["input_ids"].copy()
    rows, slots = np.nonzero(fields["masked_labels"] != -100)
    ids[rows, fields["masked_positions"][rows, slots]] = fields["masked_labels"][rows, slots]
    return ids


def parts(row):
    """A and B as token offsets, from the unmasked ids of one sample."""
    assert row[0] == CLS
    first, last = np.flatnonzero(row == SEP)
    assert (row[last + 1 :] == PAD).all()
    return row[1:first] - 10, row[first + 1 : last] - 10


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.kind)
@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_sample_is_the_same_whoever_asks(objective, split):
    whole = make_batches(PREPARED, split, objective, LENGTH, seed=7)
    positions = np.random.default_rng(0).permutation(5 * whole.num_anchors)
    together = whole.batch(positions)
    again = make_batches(PREPARED, split, objective, LENGTH, seed=7)
    for chosen in (slice(0, 1), slice(3, 20), slice(None, None, 17)):
        fields = again.batch(positions[chosen])
        assert fields.keys() == together.keys()
        for name, values in fields.items():
            assert np.array_equal(values, together[name][chosen]), name


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.kind)
def test_shapes_and_dtypes(objective):
    fields = make_batches(PREPARED, "train", objective, LENGTH, seed=0).batch(np.arange(6))
    shapes = {name: (values.shape, values.dtype.name) for name, values in fields.items()}
    if objective.kind == "clm":
        assert shapes == dict.fromkeys(("input_ids", "labels"), ((6, LENGTH), "int64"))
        return
    wanted = dict.fromkeys(("input_ids", "token_type_ids"), ((6, LENGTH), "int64"))
    wanted |= dict.fromkeys(("masked_positions", "masked_labels"), ((6, 5), "int64")) | {"replaced_by_mask": ((6, 5), "bool")}
    of_pairs = {"attention_mask": ((6, LENGTH), "int64"), "next_sentence_label": ((6,), "int64")}
    assert shapes == wanted | (of_pairs if objective.kind == "mlm_nsp" else {})


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.kind)
def test_training_order_follows_the_seed_and_validation_does_not(objective):
    def ids(split, seed):
        return make_batches(PREPARED, split, objective, LENGTH, seed).batch(np.arange(20))["input_ids"]

    assert not np.array_equal(ids("train", 1), ids("train", 2))
    assert np.array_equal(ids("valid", 1), ids("valid", 2))


def test_every_block_is_seen_once_per_epoch_and_the_epochs_differ():
    batches = make_batches(PREPARED, "train", ClmConfig(), LENGTH, seed=3)
    for epoch in range(3):
        first_tokens = batches.batch(epoch * batches.num_anchors + np.arange(batches.num_anchors))["input_ids"][:, 0] - 10
        assert np.array_equal(np.sort(first_tokens), LENGTH * np.arange(batches.num_anchors))
        assert not np.array_equal(first_tokens, np.sort(first_tokens))


def test_clm_labels_are_the_next_tokens():
    fields = make_batches(PREPARED, "train", ClmConfig(), LENGTH, seed=3).batch(np.arange(40))
    assert np.array_equal(fields["labels"], fields["input_ids"] + 1)


def greedy_chunk_starts(documents, max_tokens):
    """Token offsets where chunks begin, one sentence after the other."""
    starts, token = [], 0
    for document in documents:
        room = 0
        for sentence in document:
            for length in [max_tokens] * (sentence // max_tokens) + [sentence % max_tokens] * (sentence % max_tokens > 0):
                if length > room:
                    starts.append(token)
                    room = max_tokens
                room -= length
                token += length
    return np.array(starts)


def test_every_chunk_is_seen_exactly_once_per_epoch():
    chunk_starts = greedy_chunk_starts(DOCUMENTS, LENGTH - 3)
    batches = make_batches(PREPARED, "train", MlmNspConfig(), LENGTH, seed=3)
    assert batches.num_anchors == len(chunk_starts)
    orders = []
    for epoch in range(3):
        rows = restored(batches.batch(epoch * batches.num_anchors + np.arange(batches.num_anchors)))
        orders.append([int(np.searchsorted(chunk_starts, parts(row)[0][0], side="right")) - 1 for row in rows])
        assert sorted(orders[-1]) == list(range(batches.num_anchors))
    assert orders[0] != orders[1] != orders[2]


def test_a_pair_that_follows_on_and_is_not_cut_short_covers_its_chunk():
    prepared = synthetic([[5] * 20 for _ in range(20)])
    batches = make_batches(prepared, "train", MlmNspConfig(short_sequence_probability=0.0), LENGTH, seed=3)
    fields = batches.batch(np.arange(batches.num_anchors))
    for row, label in zip(restored(fields), fields["next_sentence_label"]):
        a, b = parts(row)
        assert a[0] % 100 % 25 == 0 and len(a) % 5 == 0  # chunks are five sentences of five tokens, documents four chunks
        assert label == 1 or b[-1] >= a[0] + 24


def test_pairs_hold_text_of_one_document_each_and_labels_are_right():
    batches = make_batches(PREPARED, "train", MlmNspConfig(), LENGTH, seed=5)
    fields = batches.batch(np.arange(3000))
    sentence_starts = np.asarray(PREPARED.sources[0].train.sentence_starts)
    document_starts = sentence_starts[np.asarray(PREPARED.sources[0].train.document_starts)]

    def document_of(offsets):
        found = np.unique(np.searchsorted(document_starts, offsets, side="right") - 1)
        assert len(found) == 1
        return found[0]

    for row, label, types, mask in zip(restored(fields), fields["next_sentence_label"], fields["token_type_ids"], fields["attention_mask"]):
        a, b = parts(row)
        assert len(a) >= 1 and len(b) >= 1
        sentence_of_b = sentence_starts[np.searchsorted(sentence_starts, b[0], side="right") - 1]
        assert (b[0] - sentence_of_b) % (LENGTH - 3) == 0  # sentences longer than a sample are cut
        assert np.all(np.diff(a) == 1) and np.all(np.diff(b) == 1)
        assert mask.sum() == len(a) + len(b) + 3 and np.all(np.diff(mask) <= 0)
        assert np.array_equal(types, [0] * (len(a) + 2) + [1] * (len(b) + 1) + [0] * (LENGTH - len(a) - len(b) - 3))
        if label == 0:
            assert b[0] == a[-1] + 1 and document_of(a) == document_of(b)
        else:
            assert document_of(a) != document_of(b)


def test_next_and_random_are_balanced_and_equally_long():
    """Neither the length of the sample nor that of A tells the two apart."""
    prepared = synthetic([[5] * 400 for _ in range(20)])
    batches = make_batches(prepared, "train", MlmNspConfig(), LENGTH, seed=5)
    fields = batches.batch(np.arange(20_000))
    is_random = fields["next_sentence_label"] == 1
    assert abs(is_random.mean() - 0.5) < 4 * 0.5 / np.sqrt(20_000)
    lengths = fields["attention_mask"].sum(axis=1)
    assert abs((lengths[is_random] == LENGTH).mean() - (lengths[~is_random] == LENGTH).mean()) < 0.02
    a_lengths = lengths - fields["token_type_ids"].sum(axis=1)
    assert abs(a_lengths[is_random].mean() - a_lengths[~is_random].mean()) < 0.3


def test_short_sequences_occur_as_often_as_asked():
    prepared = synthetic([[5] * 400 for _ in range(20)])
    for probability in (0.0, 0.1, 0.5):
        batches = make_batches(prepared, "train", MlmNspConfig(short_sequence_probability=probability), LENGTH, seed=5)
        lengths = batches.batch(np.arange(20_000))["attention_mask"].sum(axis=1)
        wanted = probability * (LENGTH - 5) / (LENGTH - 4)  # one of the lengths drawn is the full one
        assert abs((lengths < LENGTH).mean() - wanted) < 0.02  # documents that end close to the chunk are rare here


def test_pairs_and_masks_are_drawn_afresh_in_every_epoch():
    batches = make_batches(synthetic([[5] * 4] * 9), "train", MlmNspConfig(), LENGTH, seed=0)
    epochs = [batches.batch(epoch * batches.num_anchors + np.arange(batches.num_anchors)) for epoch in range(2)]
    assert not np.array_equal(epochs[0]["masked_positions"], epochs[1]["masked_positions"])
    by_chunk = [fields["next_sentence_label"][np.argsort(restored(fields)[:, 1])] for fields in epochs]
    assert not np.array_equal(*by_chunk)


def test_a_text_of_one_document_takes_random_sentences_from_outside_the_chunk():
    batches = make_batches(synthetic([[6] * 50]), "train", MlmNspConfig(short_sequence_probability=0.0), LENGTH, seed=0)
    fields = batches.batch(np.arange(500))
    for row, label in zip(restored(fields), fields["next_sentence_label"]):
        a, b = parts(row)
        assert (b[0] == a[-1] + 1) == (label == 0)


@pytest.mark.parametrize("documents", [[[1]], [[3, 4]], [[200]], [[1], [1]], [[100, 1], [1, 100]]])
def test_the_smallest_corpora_make_samples(documents):
    fields = make_batches(synthetic(documents), "train", MlmNspConfig(), LENGTH, seed=0).batch(np.arange(200))
    for row in restored(fields):
        a, b = parts(row)
        assert len(a) >= 1 and len(b) >= 1 and max(*a, *b) < sum(map(sum, documents))


def test_full_sequences_restore_the_stream_with_separators():
    batches = make_batches(PREPARED, "valid", MlmConfig(), LENGTH, seed=0)
    fields = batches.batch(np.arange(batches.num_anchors))
    rows = restored(fields)
    assert (rows[:, 0] == CLS).all() and (rows[:, -1] == SEP).all()
    stream, token = [], 10
    for document in DOCUMENTS:
        stream += [*range(token, token + sum(document)), SEP]
        token += sum(document)
    assert batches.num_anchors == len(stream) // (LENGTH - 2)
    assert rows[:, 1:-1].ravel().tolist() == stream[: batches.num_anchors * (LENGTH - 2)]


@pytest.mark.parametrize("objective", OBJECTIVES[:2], ids=lambda objective: objective.kind)
def test_special_tokens_are_never_predicted(objective):
    fields = make_batches(PREPARED, "train", objective, LENGTH, seed=0).batch(np.arange(2000))
    labels = fields["masked_labels"]
    assert labels[labels != -100].min() >= 10
    predicted = (labels != -100).sum(axis=1)
    real = fields["attention_mask"].sum(axis=1) if objective.kind == "mlm_nsp" else np.full(2000, LENGTH)
    assert np.array_equal(predicted, np.minimum(5, np.maximum(1, np.rint(0.15 * real))))


def test_unmasking_restores_the_text(bert):
    tokenizer = load_tokenizer(bert.tokenizer_dir)
    fields = make_batches(bert, "valid", MlmNspConfig(short_sequence_probability=0.0), 64, seed=0).batch(np.arange(5))
    text = tokenizer.decode(np.asarray(bert.sources[0].valid.tokens).tolist())
    for row in restored(fields):
        first, _ = np.flatnonzero(row == bert.special.sep)
        assert tokenizer.decode(row[1:first].tolist()) in text


def test_gpt2_documents_end_with_the_end_of_text(gpt2):
    tokens, ends = np.asarray(gpt2.sources[0].train.tokens), np.asarray(gpt2.sources[0].train.sentence_starts)[1:] - 1
    assert np.array_equal(np.flatnonzero(tokens == gpt2.special.eot), ends)


@pytest.mark.parametrize("objective", OBJECTIVES[1:], ids=lambda objective: objective.kind)
def test_a_corpus_below_one_sample_is_the_users_to_mend(objective):
    with pytest.raises(UserError, match="train text is below one sample: 12 tokens for data.max_seq_length=32; give more text"):
        make_batches(synthetic([[6, 6]]), "train", objective, LENGTH, seed=0)


def test_a_folder_that_is_not_whole_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a whole prepared corpus"):
        open_prepared(tmp_path)
