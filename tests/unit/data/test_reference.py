"""The vectorised sampler against one sample at a time in plain Python integers, written from the description alone."""

import numpy as np
import pytest

from pretrain.config.schema import MlmNspConfig
from pretrain.data.batches import make_batches
from pretrain.data.random_numbers import Stream
from tests.unit.data.corpora import random_documents, synthetic

WRAP = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(value):
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & WRAP
    value = (value ^ value >> 27) * 0x94D049BB133111EB & WRAP
    return value ^ value >> 31


def draws(seed, position, stream, count):
    key = mix(seed + GOLDEN * (stream + 1) & WRAP)
    start = mix(position * 0xD1342543DE82EF95 + key & WRAP)
    return [mix(start + GOLDEN * index & WRAP) for index in range(1, count + 1)]


def below(bits, bound):
    return (bits >> 32) * bound >> 32


def uniform(bits):
    return (bits >> 11) / 2**53


def permuted(index, size, seed, epoch):
    bits = max(4, (size - 1).bit_length())
    keys = draws(seed, epoch, Stream.ORDER, 8)
    while True:
        high, low = index >> bits // 2, index % (1 << bits // 2)
        for number in range(4):
            high ^= mix(low + keys[2 * number] & WRAP) % (1 << bits - bits // 2)
            low ^= mix(high + keys[2 * number + 1] & WRAP) % (1 << bits // 2)
        index = (high << bits // 2) + low
        if index < size:
            return index


class Reference:
    """Documents are lists of sentences, sentences lists of token ids."""

    def __init__(self, lengths, max_seq_length, seed, vocab_size):
        self.max_tokens, self.length, self.seed, self.vocab_size = max_seq_length - 3, max_seq_length, seed, vocab_size
        token = 10
        self.documents = []
        for document in lengths:
            sentences = []
            for length in document:
                ids = list(range(token, token + length))
                sentences += [ids[start : start + self.max_tokens] for start in range(0, length, self.max_tokens)]
                token += length
            self.documents.append(sentences)
        self.chunks = [chunk for number in range(len(lengths)) for chunk in self.chunks_of(number)]

    def chunks_of(self, number):
        sentences, first = self.documents[number], 0
        while first < len(sentences):
            end, tokens = first, 0
            while end < len(sentences) and tokens + len(sentences[end]) <= self.max_tokens:
                tokens += len(sentences[end])
                end += 1
            yield number, first, end
            first = end

    def pair(self, position):
        epoch, index = divmod(position, len(self.chunks))
        number, first, end = self.chunks[permuted(index, len(self.chunks), self.seed, epoch)]
        coin, boundary, is_short, short_length, other_sentence = draws(self.seed, position, Stream.PAIR, 5)
        target = 2 + below(short_length, self.max_tokens - 1) if uniform(is_short) < 0.3 else self.max_tokens
        middle = first + 1 + below(boundary, end - first - 1) if end - first > 1 else end
        a = sum(self.documents[number][first:middle], [])
        if middle < len(self.documents[number]) and uniform(coin) < 0.5:
            label, b = 0, sum(self.documents[number][middle:], [])
        else:
            others = [
                sentences[start:] for index, sentences in enumerate(self.documents) if index != number for start in range(len(sentences))
            ]
            label, b = 1, sum(others[below(other_sentence, len(others))], [])
        rest_of_chunk = sum(map(len, self.documents[number][middle:end])) or len(b)
        a = a[-min(len(a), target - min(rest_of_chunk, target // 2)) :]
        return a, b[: target - len(a)], label

    def sample(self, position):
        a, b, label = self.pair(position)
        ids = [2, *a, 3, *b, 3]
        padding = [0] * (self.length - len(ids))
        fields = {
            "token_type_ids": [0] * (len(a) + 2) + [1] * (len(b) + 1) + padding,
            "attention_mask": [1] * len(ids) + padding,
            "next_sentence_label": label,
        }
        lots = draws(self.seed, position, Stream.MASKED_POSITION, self.length)
        column_bits = (self.length - 1).bit_length()
        by_lot = sorted((index for index, token in enumerate(ids) if token >= 10), key=lambda index: (lots[index] >> column_bits, index))
        slots = -(-15 * self.length // 100)
        chosen = sorted(by_lot[: min(slots, max(1, round(0.15 * len(ids))))])
        kinds = draws(self.seed, position, Stream.REPLACEMENT_KIND, slots)
        tokens = draws(self.seed, position, Stream.REPLACEMENT_TOKEN, slots)
        unused = slots - len(chosen)
        fields["masked_positions"] = chosen + [0] * unused
        fields["masked_labels"] = [ids[index] for index in chosen] + [-100] * unused
        fields["replaced_by_mask"] = [uniform(kinds[slot]) < 0.8 for slot in range(len(chosen))] + [False] * unused
        for slot, index in enumerate(chosen):
            if uniform(kinds[slot]) < 0.8:
                ids[index] = 4
            elif uniform(kinds[slot]) < 0.8 + 0.1:
                ids[index] = 5 + below(tokens[slot], self.vocab_size - 5)
        return fields | {"input_ids": ids + padding}


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
@pytest.mark.parametrize("max_seq_length", [8, 20, 64])
def test_vectorised_samples_equal_the_reference(seed, max_seq_length):
    lengths = random_documents(15, seed=4, longest_sentence=30)
    prepared = synthetic(lengths)
    batches = make_batches(prepared, "train", MlmNspConfig(short_sequence_probability=0.3), max_seq_length, seed)
    reference = Reference(lengths, max_seq_length, seed, prepared.vocab_size)
    assert batches.num_anchors == len(reference.chunks)
    positions = np.arange(2 * batches.num_anchors + 5)
    fields = batches.batch(positions)
    for position in positions.tolist():
        for name, wanted in reference.sample(position).items():
            assert np.array_equal(fields[name][position], wanted), (position, name)
