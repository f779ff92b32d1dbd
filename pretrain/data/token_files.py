"""The files of one split: token ids and where sentences and documents begin, written as a stream.

NAME.tokens            ids, uint16 where the vocabulary fits, else uint32, little-endian
NAME.sentence_starts   int64 [sentences + 1], offsets into the tokens
NAME.document_starts   int64 [documents + 1], offsets into the sentences
"""

from __future__ import annotations

import hashlib
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BATCH_CHARACTERS = 1 << 21
PARTS = ("tokens", "sentence_starts", "document_starts")


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest dtype that holds every id."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


class SplitWriter:
    """Tokenizes documents in large batches, on all cores, and appends them to the files of one split.

    Args:
        folder, name: where the files go and what they are called.
        tokenizer: given text is text: what looks like a special token in it is encoded as ordinary characters.
        end_of_document: id appended to every document, or None.
    """

    def __init__(self, folder: Path, name: str, tokenizer: Tokenizer, end_of_document: int | None) -> None:
        vocab_size = tokenizer.get_vocab_size()
        self.dtype = token_dtype(vocab_size)
        self.counts = {"documents": 0, "sentences": 0, "tokens": 0}
        self.unigram_counts = np.zeros(vocab_size, dtype=np.int64)
        self._tokenizer = tokenizer
        self._end_of_document = end_of_document
        self._files = {part: _HashedFile(folder / f"{name}.{part}") for part in PARTS}
        for part in PARTS[1:]:
            self._files[part].write(np.zeros(1, dtype="<i8"))
        self._waiting: list[list[str]] = []
        self._waiting_characters = 0

    def add(self, pieces: list[str]) -> None:
        """One document, as the pieces that are tokenized apart (the sentences; or the whole text as one)."""
        self._waiting.append(pieces)
        self._waiting_characters += sum(map(len, pieces))
        if self._waiting_characters >= _BATCH_CHARACTERS:
            self._flush()

    def close(self) -> dict[str, str]:
        """Write what is waiting; returns the SHA-256 of each file by its name."""
        self._flush()
        return {file.path.name: file.close() for file in self._files.values()}

    def _flush(self) -> None:
        """Tokenize and write what is waiting. Pieces without a token are dropped, and documents without a piece."""
        pieces = list(chain.from_iterable(self._waiting))
        encodings = iter(self._tokenizer.encode_batch_fast(pieces, add_special_tokens=False))
        documents = [[ids for _ in document if (ids := next(encodings).ids)] for document in self._waiting]
        documents = [document for document in documents if document]
        self._waiting, self._waiting_characters = [], 0
        if not documents:
            return
        if self._end_of_document is not None:
            for document in documents:
                document[-1].append(self._end_of_document)
        self._write(documents)

    def _write(self, documents: list[list[list[int]]]) -> None:
        sentences = list(chain.from_iterable(documents))
        lengths = np.fromiter(map(len, sentences), dtype=np.int64, count=len(sentences))
        sentence_ends = self.counts["tokens"] + np.cumsum(lengths)
        document_ends = self.counts["sentences"] + np.cumsum(np.fromiter(map(len, documents), dtype=np.int64, count=len(documents)))
        tokens = np.fromiter(chain.from_iterable(sentences), dtype=self.dtype, count=int(lengths.sum()))
        for part, array in zip(PARTS, (tokens, sentence_ends.astype("<i8"), document_ends.astype("<i8"))):
            self._files[part].write(array)
        self.unigram_counts += np.bincount(tokens, minlength=len(self.unigram_counts))
        self.counts["documents"] += len(documents)
        self.counts["sentences"] += len(sentences)
        self.counts["tokens"] += len(tokens)


class _HashedFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._digest = hashlib.sha256()

    def write(self, array: np.ndarray) -> None:
        self._file.write(array.data)
        self._digest.update(array.data)

    def close(self) -> str:
        self._file.close()
        return self._digest.hexdigest()
