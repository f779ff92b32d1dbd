"""Segments -> the files of a prepared folder: copies left out, documents dealt to training and validation, in the order of the text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pretrain.data.progress import Progress
from pretrain.data.reading import ReadLog
from pretrain.data.segments import Segment, column_of, logs_of, segments_of
from pretrain.data.splitting import TRAIN, VALID, copies, held_out
from pretrain.data.token_files import SplitWriter, token_dtype


@dataclass(frozen=True)
class TokenizedText:
    """What the units of one text (`<stem>.0000.npz`, `<stem>.json`) have become."""

    stems: Sequence[Path]

    def segments(self) -> Iterator[Segment]:
        for stem in self.stems:
            yield from segments_of(stem)

    def digests(self) -> Iterator[np.ndarray]:
        for stem in self.stems:
            yield from column_of(stem, "digests")

    def num_documents(self) -> int:
        return sum(len(digests) for digests in self.digests())

    def logs(self) -> list[ReadLog]:
        """One per part, all units' in order."""
        return [log for stem in self.stems for log in logs_of(stem)]


@dataclass(frozen=True)
class TokenizedSource:
    """One source: its training text and, where it was given apart, its validation text."""

    name: str
    train: TokenizedText
    valid: TokenizedText | None

    def texts(self) -> list[TokenizedText]:
        return [self.train, self.valid] if self.valid else [self.train]


@dataclass(frozen=True)
class AssembledSource:
    """What was written of one source."""

    name: str
    writers: dict[str, SplitWriter]
    token_dtype: str
    checksums: dict[Path, str]
    logs: list[ReadLog]


def copies_in(sources: Sequence[TokenizedSource]) -> list[np.ndarray]:
    """For every text of every source in order, which of its documents stood before in any of them (bool [documents])."""
    texts = [text for source in sources for text in source.texts()]
    lengths = [text.num_documents() for text in texts]
    found = copies(lambda: (digests for text in texts for digests in text.digests()), sum(lengths))
    return np.split(found, np.cumsum(lengths)[:-1])


def assemble(
    source: TokenizedSource,
    left_out: Sequence[np.ndarray],
    folder: Path,
    vocab_size: int,
    validation_fraction: float,
    end_of_document: int | None,
    progress: Progress,
) -> AssembledSource:
    """Write `folder`/train.* and valid.*; `left_out` says for each text which documents are copies (bool [documents])."""
    folder.mkdir(parents=True, exist_ok=True)
    writers = {split: SplitWriter(folder, split, vocab_size) for split in (TRAIN, VALID)}
    logs = []
    for split, text, copy in zip((TRAIN, VALID), source.texts(), left_out, strict=False):
        kept = ~copy
        is_valid = np.full(len(kept), split == VALID)
        if source.valid is None:
            is_valid[kept] = held_out(_rows(text.digests(), kept), int(kept.sum()), validation_fraction)
        if source.valid is None and kept.sum() == 1:
            segment, index = _segment_of(text, int(kept.argmax()))
            _write_only_document(segment, index, writers, validation_fraction, end_of_document)
        else:
            _write(text, kept, is_valid, writers, progress)
        logs += _counted(text, copy)
    checksums = {path: digest for writer in writers.values() for path, digest in writer.close().items()}
    return AssembledSource(source.name, writers, token_dtype(vocab_size).str, checksums, logs)


def _rows(arrays: Iterator[np.ndarray], kept: np.ndarray) -> Iterator[np.ndarray]:
    start = 0
    for array in arrays:
        yield array[kept[start : start + len(array)]]
        start += len(array)


def _write(text: TokenizedText, kept: np.ndarray, is_valid: np.ndarray, writers: dict[str, SplitWriter], progress: Progress) -> None:
    start = 0
    for segment in text.segments():
        here = slice(start, start + len(segment.document_lengths))
        for split, chosen in ((TRAIN, kept[here] & ~is_valid[here]), (VALID, kept[here] & is_valid[here])):
            if chosen.any():
                writers[split].add(*_select(segment, chosen))
        progress.advance(segment.tokens.nbytes)
        start = here.stop


def _select(segment: Segment, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tokens, sentence lengths and document lengths of the chosen documents (bool [documents])."""
    if chosen.all():
        return segment.tokens, segment.sentence_lengths, segment.document_lengths
    sentences = np.repeat(chosen, segment.document_lengths)
    tokens = np.repeat(sentences, segment.sentence_lengths)
    return segment.tokens[tokens], segment.sentence_lengths[sentences], segment.document_lengths[chosen]


def _segment_of(text: TokenizedText, document: int) -> tuple[Segment, int]:
    """The segment that holds a document, given by its number in the text, and its number there."""
    for segment in text.segments():
        if document < len(segment.document_lengths):
            return segment, document
        document -= len(segment.document_lengths)
    raise IndexError(f"no document {document}")


def _write_only_document(
    segment: Segment, index: int, writers: dict[str, SplitWriter], fraction: float, end_of_document: int | None
) -> None:
    """A corpus of one document: its tail is held out, cut between sentences or, within a single one, between tokens."""
    chosen = np.arange(len(segment.document_lengths)) == index
    tokens, lengths, _ = _select(segment, chosen)
    if len(lengths) > 1:
        head = len(lengths) - _tail(len(lengths), fraction)
        cut = int(lengths[:head].sum())
        pieces = [(tokens[:cut], lengths[:head]), (tokens[cut:], lengths[head:])]
    else:
        ending = tokens[len(tokens) :] if end_of_document is None else tokens[-1:]
        body = tokens[: len(tokens) - len(ending)]
        head = len(body) - _tail(len(body), fraction)
        halves = [np.concatenate([half, ending]) for half in (body[:head], body[head:]) if len(half)]
        pieces = [(half, np.array([len(half)])) for half in halves]
    for split, (piece, sentence_lengths) in zip((TRAIN, VALID), pieces):
        writers[split].add(piece, sentence_lengths, np.array([len(sentence_lengths)]))


def _tail(length: int, fraction: float) -> int:
    return min(length - 1, max(1, round(fraction * length)))


def _counted(text: TokenizedText, copy: np.ndarray) -> list[ReadLog]:
    """The logs of a text's parts, with the copies counted where they stood."""
    logs = text.logs()
    start = first_log = 0
    for stem in text.stems:
        num_parts = len(logs_of(stem))
        for parts in column_of(stem, "parts"):
            here = parts[copy[start : start + len(parts)]]
            for index, number in enumerate(np.bincount(here, minlength=num_parts)):
                logs[first_log + index].duplicates += int(number)
            start += len(parts)
        first_log += num_parts
    return logs
