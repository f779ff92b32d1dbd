"""Sentence pairs for BERT: which stretch of text is A, which is B, and whether B follows A.

An anchor is a chunk of consecutive sentences of one document that fits one sample; the chunks of a document do not overlap and leave
nothing out. A is the chunk up to a random sentence boundary, or a chunk of one sentence whole. B is the text from there on, or half of
the time the text of another document from a random sentence on; only where the document ends with A there is no choice. In both cases
B runs on until the sample is full or its document ends, so that neither the length of a sample nor where B breaks off tells the two apart.
"""

from dataclasses import dataclass

import numpy as np

from pretrain.data.prepared import Split
from pretrain.data.random_numbers import Stream, integers_below, random_bits, uniform
from pretrain.data.ranges import ranges

IS_NEXT, IS_RANDOM = 0, 1
_FEWEST_TOKENS = 2
_FEW_DOCUMENTS = 100
"""So many are faster gone through one by one."""


@dataclass(frozen=True)
class Pairs:
    """Where n pairs lie in the token stream; every array int64 [n].

    `label` is 0 where B follows A and 1 where it is random, as BertForPreTraining has it.
    """

    a_start: np.ndarray
    a_length: np.ndarray
    b_start: np.ndarray
    b_length: np.ndarray
    label: np.ndarray


class PairSampler:
    """Draws pairs from one split.

    Args:
        split: the text.
        max_tokens: tokens of A and B together at most.
        short_sequence_probability: how often a pair is cut to a random shorter length.
        seed: with a position it determines the pair.
    """

    def __init__(self, split: Split, max_tokens: int, short_sequence_probability: float, seed: int) -> None:
        self.max_tokens = max_tokens
        self.short_sequence_probability = short_sequence_probability
        self.seed = seed
        sentence_starts, document_starts = np.asarray(split.sentence_starts), np.asarray(split.document_starts)
        self._starts, self._documents = _cut_long_sentences(sentence_starts, document_starts, max_tokens)
        self._anchors = _chunks(self._starts, self._documents, max_tokens)
        self.num_anchors = len(self._anchors) - 1

    def draw(self, anchors: np.ndarray, positions: np.ndarray) -> Pairs:
        """The pairs of these anchors (int64 [n]) at these positions of the run (int64 [n])."""
        coin, boundary, is_short, short_length, other_sentence = random_bits(self.seed, positions, Stream.PAIR, 5).T
        first, end = self._anchors[anchors], self._anchors[anchors + 1]
        document = np.searchsorted(self._documents, first, side="right") - 1
        document_first, document_end = self._documents[document], self._documents[document + 1]
        num_sentences = end - first
        middle = np.where(num_sentences > 1, first + 1 + integers_below(boundary, np.maximum(num_sentences - 1, 1)), end)
        is_next = (middle < document_end) & (uniform(coin) < 0.5)
        if len(self._documents) > 2:
            random_sentence = self._outside(document_first, document_end, other_sentence)
        else:
            random_sentence = self._outside(first, np.minimum(end + 1, document_end), other_sentence)
        b_sentence = np.where(is_next, middle, random_sentence)

        a_start, b_start = self._starts[first], self._starts[b_sentence]
        a_available = self._starts[middle] - a_start
        b_available = self._starts[self._documents[np.searchsorted(self._documents, b_sentence, side="right")]] - b_start
        rest_of_chunk = self._starts[end] - self._starts[middle]
        b_reserved = np.where(rest_of_chunk > 0, rest_of_chunk, b_available)
        target = self._target_lengths(is_short, short_length)
        a_length = np.minimum(a_available, target - np.minimum(b_reserved, target // 2))
        return Pairs(
            a_start=a_start + a_available - a_length,  # cut at the front, so that A ends where B may begin
            a_length=a_length,
            b_start=b_start,
            b_length=np.minimum(b_available, target - a_length),
            label=np.where(is_next, IS_NEXT, IS_RANDOM),
        )

    def _target_lengths(self, is_short: np.ndarray, short_length: np.ndarray) -> np.ndarray:
        """Tokens of A and B together: all that fit, or now and then any smaller number from 2."""
        shorter = _FEWEST_TOKENS + integers_below(short_length, self.max_tokens - _FEWEST_TOKENS + 1)
        return np.where(uniform(is_short) < self.short_sequence_probability, shorter, self.max_tokens)

    def _outside(self, first: np.ndarray, end: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """A random sentence outside [first, end); any sentence where there is none outside."""
        num_sentences = len(self._starts) - 1
        num_outside = num_sentences - (end - first)
        chosen = integers_below(bits, np.where(num_outside > 0, num_outside, num_sentences))
        return chosen + np.where((num_outside > 0) & (chosen >= first), end - first, 0)


def _cut_long_sentences(starts: np.ndarray, documents: np.ndarray, max_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Sentence and document starts after every sentence above `max_tokens` is cut into pieces of that length."""
    long = np.flatnonzero(np.diff(starts) > max_tokens)
    if not long.size:
        return starts, documents
    num_cuts = (starts[long + 1] - starts[long] - 1) // max_tokens
    cuts = np.repeat(starts[long], num_cuts) + max_tokens * ranges(np.ones_like(num_cuts), num_cuts)
    cuts_before = np.concatenate([[0], np.cumsum(num_cuts)])
    return np.insert(starts, np.repeat(long + 1, num_cuts), cuts), documents + cuts_before[np.searchsorted(long, documents)]


def _chunks(starts: np.ndarray, documents: np.ndarray, max_tokens: int) -> np.ndarray:
    """Boundaries, as sentence indices, of greedy chunks within documents of at most `max_tokens`; int64 [chunks + 1]."""
    last_that_fits = np.searchsorted(starts, starts[:-1] + max_tokens, side="right") - 1
    document_end = np.repeat(documents[1:], np.diff(documents))
    chunk_ends = np.minimum(last_that_fits, document_end)
    is_boundary = np.zeros(len(chunk_ends) + 1, dtype=bool)
    is_boundary[documents] = True
    ends = chunk_ends[documents[:-1][np.diff(documents) > 0]]
    while len(ends := ends[~is_boundary[ends]]) > _FEW_DOCUMENTS:  # one chunk further in all documents at once
        is_boundary[ends] = True
        ends = chunk_ends[ends]
    for end in ends.tolist():
        while not is_boundary[end]:
            is_boundary[end] = True
            end = chunk_ends[end]
    return np.flatnonzero(is_boundary)
