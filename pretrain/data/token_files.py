"""The files of one split of one source: token ids and where sentences and documents begin, written as a stream.

NAME.tokens            ids, uint16 where the vocabulary fits, else uint32, little-endian
NAME.sentence_starts   int64 [sentences + 1], offsets into the tokens
NAME.document_starts   int64 [documents + 1], offsets into the sentences
"""

import hashlib
from pathlib import Path

import numpy as np

PARTS = ("tokens", "sentence_starts", "document_starts")


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest dtype that holds every id."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


class SplitWriter:
    """Appends tokenized documents to the files of one split.

    Args:
        folder, name: where the files go and what they are called.
        vocab_size: number of ids.

    Attributes:
        counts: documents, sentences and tokens written.
        unigram_counts: int64 [vocab_size], how often each id was written.
    """

    def __init__(self, folder: Path, name: str, vocab_size: int) -> None:
        self.counts = {"documents": 0, "sentences": 0, "tokens": 0}
        self.unigram_counts = np.zeros(vocab_size, dtype=np.int64)
        self._files = {part: _HashedFile(folder / f"{name}.{part}") for part in PARTS}
        for part in PARTS[1:]:
            self._files[part].write(np.zeros(1, dtype="<i8"))

    def add(self, tokens: np.ndarray, sentence_lengths: np.ndarray, document_lengths: np.ndarray) -> None:
        """Documents in order: ids [tokens] in the files' dtype, sentences' lengths in tokens, documents' lengths in sentences."""
        sentence_ends = self.counts["tokens"] + np.cumsum(sentence_lengths, dtype=np.int64)
        document_ends = self.counts["sentences"] + np.cumsum(document_lengths, dtype=np.int64)
        for part, array in zip(PARTS, (tokens, sentence_ends.astype("<i8"), document_ends.astype("<i8"))):
            self._files[part].write(array)
        self.unigram_counts += np.bincount(tokens, minlength=len(self.unigram_counts))
        for name, array in (("documents", document_lengths), ("sentences", sentence_lengths), ("tokens", tokens)):
            self.counts[name] += len(array)

    def close(self) -> dict[Path, str]:
        """Finish the files; returns the SHA-256 of each by its path."""
        return {file.path: file.close() for file in self._files.values()}


class _HashedFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._digest = hashlib.sha256()

    def write(self, array: np.ndarray) -> None:
        data = np.ascontiguousarray(array).data
        self._file.write(data)
        self._digest.update(data)

    def close(self) -> str:
        self._file.close()
        return self._digest.hexdigest()
