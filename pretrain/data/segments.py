"""Text -> token ids, in units that one process does alone: the parts of a unit are read, tokenized and written as segments.

A segment is a file of some megabytes that appears under its name when it is whole. A preparation that was killed goes on behind the last one:
the text up to there is read again, but not tokenized.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count, takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pretrain import durable
from pretrain.data.memo import WordMemo
from pretrain.data.parts import Part
from pretrain.data.reading import OnBytes, ReadLog
from pretrain.data.sentences import sentences_of
from pretrain.data.token_files import token_dtype

BATCH_CHARACTERS = 1 << 20
"""Text tokenized at once."""
SEGMENT_CHARACTERS = 1 << 24
"""Text of one segment, about; what a kill can cost."""
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Recipe:
    """What is made of the text, apart from the text."""

    tokenizer_file: Path
    by_sentence: bool
    """BERT's documents are sentences; GPT-2's are one text each, with `end_of_document` behind it."""
    end_of_document: int | None
    min_document_characters: int


class Segment(NamedTuple):
    """Tokenized documents in order.

    tokens: uint16 or uint32 [tokens]; sentence_lengths: int32 [sentences], in tokens; document_lengths: int32 [documents], in sentences;
    digests: uint8 [documents, 16], hashes of the documents' texts; parts: int32 [documents], which part of the unit each came from;
    position: how many documents of the unit are behind after this segment, those without a token included; without_tokens: int64
    [parts of the unit], how many those were, by part.
    """

    tokens: np.ndarray
    sentence_lengths: np.ndarray
    document_lengths: np.ndarray
    digests: np.ndarray
    parts: np.ndarray
    position: np.ndarray
    without_tokens: np.ndarray


def tokenize_unit(unit: Sequence[Part], stem: Path, recipe: Recipe, on_bytes: OnBytes) -> None:
    """Write the segments of a unit as `<stem>.0000.npz` and so on, and last `<stem>.json`, the logs of its parts.

    Does only what is missing. Raises UserError where most of a file cannot be read.
    """
    done = stem.with_suffix(".json")
    if done.exists():
        on_bytes(sum(part.size_bytes for part in unit))
        return
    writer = _UnitWriter(stem, recipe, len(unit))
    logs = []
    for index, part in enumerate(unit):
        log = ReadLog(part.name, on_bytes=on_bytes)
        for document in part.documents(log):
            if len(document) < recipe.min_document_characters:
                log.too_short += 1
            else:
                writer.add(document, index)
        logs.append(log)
    for log, without in zip(logs, writer.close(), strict=True):
        log.without_tokens = int(without)
    durable.write(temporary := done.with_suffix(".tmp"), json.dumps([_plain(log) for log in logs]))
    temporary.replace(done)


def logs_of(stem: Path) -> list[ReadLog]:
    """The logs of a finished unit's parts."""
    return [ReadLog(**log) for log in json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))]


def segments_of(stem: Path) -> Iterator[Segment]:
    """The segments of a unit that are there and whole, in order."""
    for number in count():
        path = _segment_path(stem, number)
        if not path.exists():
            return
        yield _read(path)


def column_of(stem: Path, name: str) -> Iterator[np.ndarray]:
    """One array of each segment of a unit, in order; the others are not read."""
    for number in count():
        path = _segment_path(stem, number)
        if not path.exists():
            return
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays[name]


def _read(path: Path) -> Segment:
    with np.load(path, allow_pickle=False) as arrays:
        return Segment(**arrays)


def _segment_path(stem: Path, number: int) -> Path:
    return stem.with_name(f"{stem.name}.{number:04d}.npz")


def _plain(log: ReadLog) -> dict:
    values = asdict(log)
    del values["on_bytes"]
    return values


class _UnitWriter:
    """Collects documents, tokenizes them in batches and writes segments; passes over those that an earlier process has written."""

    def __init__(self, stem: Path, recipe: Recipe, num_parts: int) -> None:
        from tokenizers import Tokenizer

        self._stem, self._recipe = stem, recipe
        tokenizer = Tokenizer.from_file(str(recipe.tokenizer_file))
        tokenizer.encode_special_tokens = True  # text is text: what looks like a special token in it is ordinary characters
        self._memo = WordMemo(tokenizer)
        self._dtype = token_dtype(tokenizer.get_vocab_size())
        self._without_tokens = np.zeros(num_parts, dtype=np.int64)
        self._number = self._position = self._to_skip = 0
        for segment in _whole_segments(stem):
            self._number += 1
            self._to_skip = int(segment.position)
            self._without_tokens = segment.without_tokens
        self._batch: list[tuple[str, int]] = []
        self._batch_characters = self._segment_characters = 0
        self._tokenized: list[Segment] = []

    def add(self, document: str, part: int) -> None:
        self._position += 1
        if self._position <= self._to_skip:
            return
        self._batch.append((document, part))
        self._batch_characters += len(document)
        if self._batch_characters >= BATCH_CHARACTERS:
            self._tokenize()

    def close(self) -> np.ndarray:
        """Write what is left; returns the number of documents without a token by part."""
        self._tokenize()
        self._write()
        return self._without_tokens

    def _tokenize(self) -> None:
        if not self._batch:
            return
        pieces = [self._pieces(document) for document, _ in self._batch]
        ids, lengths = self._memo.encode(list(chain.from_iterable(pieces)))
        owners = np.repeat(np.arange(len(pieces)), np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces)))[lengths > 0]
        lengths = lengths[lengths > 0]  # pieces without a token are dropped, and documents without a piece
        document_lengths = np.bincount(owners, minlength=len(pieces))
        kept = np.flatnonzero(document_lengths)
        parts = np.array([part for _, part in self._batch], dtype=np.int32)
        without_tokens = np.bincount(np.delete(parts, kept), minlength=len(self._without_tokens))
        self._without_tokens = self._without_tokens + without_tokens  # a new array: an earlier segment holds the old one
        if self._recipe.end_of_document is not None:
            last_piece = np.cumsum(document_lengths[kept]) - 1
            ids = np.insert(ids, np.cumsum(lengths)[last_piece], self._recipe.end_of_document)
            lengths[last_piece] += 1
        self._tokenized.append(
            Segment(
                tokens=ids.astype(self._dtype),
                sentence_lengths=lengths.astype(np.int32),
                document_lengths=document_lengths[kept].astype(np.int32),
                digests=np.frombuffer(b"".join(_digest(self._batch[index][0]) for index in kept), dtype=np.uint8).reshape(-1, DIGEST_BYTES),
                parts=parts[kept],
                position=np.int64(self._position),
                without_tokens=self._without_tokens,
            )
        )
        self._segment_characters += self._batch_characters
        self._batch, self._batch_characters = [], 0
        if self._segment_characters >= SEGMENT_CHARACTERS:
            self._write()

    def _pieces(self, document: str) -> list[str]:
        return sentences_of(document.split("\n")) if self._recipe.by_sentence else [document]

    def _write(self) -> None:
        if not self._tokenized:
            return
        columns = {name: [getattr(batch, name) for batch in self._tokenized] for name in Segment._fields}
        last = {name: columns.pop(name)[-1] for name in ("position", "without_tokens")}
        path = _segment_path(self._stem, self._number)
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, **{name: np.concatenate(arrays) for name, arrays in columns.items()}, **last)
        durable.flush(temporary)
        temporary.replace(path)
        self._number += 1
        self._tokenized, self._segment_characters = [], 0


def _whole_segments(stem: Path) -> Iterator[Segment]:
    """Those that an earlier process has written; a torn one, as a power cut may leave, and all after it are removed."""
    segments = segments_of(stem)
    for number in count():
        try:
            yield next(segments)
        except StopIteration:
            return
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            for torn in takewhile(Path.exists, (_segment_path(stem, later) for later in count(number))):
                torn.unlink()
            return


def _digest(document: str) -> bytes:
    return hashlib.blake2b(document.encode(), digest_size=DIGEST_BYTES).digest()
