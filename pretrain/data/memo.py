"""Words -> ids, each different word tokenized once.

BERT and GPT-2 cut a text at its spaces before anything else is done to it, so that the ids of a text are those of its words, one after the
other. Text repeats its words; looking them up is several times faster than tokenizing them again, and the ids are the library's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from pretrain.data.ranges import ranges

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_WORDS = 1 << 18
"""Words remembered, some 50 MB: the first ones, among which are those that are met most. The others are tokenized whenever they come."""

_WHITE_SPACE_BEFORE_A_SPACE = re.compile(r"\s ")
_WORD_END = re.compile(r"(?<=\S)(?= )")


class WordMemo:
    """Tokenizes texts through a memory of words; whole texts where it is not known that words stand for themselves.

    Args:
        tokenizer: set to give no special tokens and to take none from the text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._words_of = _splitter(tokenizer)
        self._number: dict[str, int] = {}
        self._lengths, self._starts, self._ids = (np.zeros(0, dtype=np.int64) for _ in range(3))

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all texts, one behind the other (int64 [tokens]), and how many each text has (int64 [texts])."""
        words = [self._words_of(text) for text in texts]
        flat = list(chain.from_iterable(words))
        self._learn(flat)
        numbers = np.fromiter(map(self._number.__getitem__, flat), dtype=np.int64, count=len(flat))
        lengths = self._lengths[numbers]
        ends = np.cumsum(lengths)
        ids = self._ids[ranges(self._starts[numbers], lengths)]
        self._forget_the_last()
        word_ends = np.cumsum(np.fromiter(map(len, words), dtype=np.int64, count=len(words)))
        return ids, np.diff(np.concatenate([[0], ends])[word_ends], prepend=0)

    def _learn(self, words: list[str]) -> None:
        """Tokenize the words that are new."""
        new = [word for word in dict.fromkeys(words) if word not in self._number]
        if not new:
            return
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(new, add_special_tokens=False)]
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        starts = len(self._ids) + np.cumsum(lengths) - lengths
        self._number.update(zip(new, range(len(self._number), len(self._number) + len(new)), strict=True))
        flat = np.fromiter(chain.from_iterable(ids), dtype=np.int64, count=int(lengths.sum()))
        self._lengths, self._starts, self._ids = (
            np.concatenate(pair) for pair in ((self._lengths, lengths), (self._starts, starts), (self._ids, flat))
        )

    def _forget_the_last(self) -> None:
        if len(self._number) > MOST_WORDS:
            while len(self._number) > MOST_WORDS:
                self._number.popitem()
            self._lengths, self._starts = self._lengths[:MOST_WORDS], self._starts[:MOST_WORDS]
            self._ids = self._ids[: self._starts[-1] + self._lengths[-1]]


def _splitter(tokenizer: Tokenizer) -> Callable[[str], list[str]]:
    """How a text falls into words whose ids do not depend on their neighbours; not at all for a tokenizer that is neither BERT's nor GPT-2's."""
    parts = json.loads(tokenizer.to_str())
    first_step = parts["pre_tokenizer"] or {}
    if any(not token["special"] for token in parts["added_tokens"]):
        return lambda text: [text]  # they may hold spaces
    if first_step.get("type") == "BertPreTokenizer" and (parts["normalizer"] or {}).get("type") in (None, "BertNormalizer"):
        return lambda text: text.split(" ")
    gpt2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    if parts["normalizer"] is None and gpt2.items() <= first_step.items():
        return _gpt2_words
    return lambda text: [text]


def _gpt2_words(text: str) -> list[str]:
    """A word with the space before it: GPT-2's expression never matches across the end of a word and a space."""
    if _WHITE_SPACE_BEFORE_A_SPACE.search(text):
        return _WORD_END.split(text)
    first, *others = text.split(" ")
    return [first, *(f" {word}" for word in others)]
