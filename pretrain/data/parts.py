"""What a corpus is read in: files, stretches of large files, modules of the standard library. Each is read by one process from its beginning
to its end, and gives the same documents in the same order every time.

A document is text without blank lines at its ends, or a whole file. Reading streams: little more than one document is held.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from pretrain.data.reading import ReadLog, blocks, decode, packing_of
from pretrain.data.stdlib_text import stdlib_documents
from pretrain.errors import UserError

LONGEST_DOCUMENT_CHARACTERS = 1 << 20
"""A longer document is cut, at the end of a line where there is one, so that memory stays bounded."""

LONGEST_WHOLE_FILE_CHARACTERS = 1 << 22
"""The same for a file that is one document; WikiText's are shorter, and so are novels."""

STRETCH_BYTES = 1 << 26
"""A large file that is not packed is read in stretches of about this size."""

_LONGEST_RECORD_BYTES = 1 << 28
_SEARCH_BYTES = 1 << 20
_BLANK_LINES = re.compile(r"\n\s*\n")
_LEADING = re.compile(r"\A(?:[^\S\n]*\n)+")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
"""One record per line."""


class Part(Protocol):
    """Something to read documents from; small, so that it can be sent to another process."""

    @property
    def name(self) -> str:
        """What the user knows it by."""

    @property
    def size_bytes(self) -> int:
        """Its size on disk, for showing progress."""

    def documents(self, log: ReadLog) -> Iterator[str]:
        """Every document in order. Raises UserError where most of it cannot be read."""


@dataclass(frozen=True)
class _Stretch:
    """Bytes [start, stop) of a file; to its end where `stop` is None."""

    path: Path
    start: int
    stop: int | None

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size if self.stop is None else self.stop - self.start


@dataclass(frozen=True)
class TextStretch(_Stretch):
    """Plain text, a blank line between documents."""

    def documents(self, log: ReadLog) -> Iterator[str]:
        rest = ""
        for block in blocks(self.path, log, self.start, self.stop):
            *whole, rest = _BLANK_LINES.split(rest + block)
            for text in whole:
                yield from tidy(text, log)
            while len(rest) > LONGEST_DOCUMENT_CHARACTERS:
                head, rest = _cut(rest)
                yield from tidy(head, log)
        if not log.cut_short:  # else the last document is not whole
            yield from tidy(rest, log)
        log.check()


@dataclass(frozen=True)
class WholeFile(_Stretch):
    """Plain text that is one document as it stands, with all its blank lines."""

    def documents(self, log: ReadLog) -> Iterator[str]:
        text = ""
        for block in blocks(self.path, log):
            if len(text) + len(block) > LONGEST_WHOLE_FILE_CHARACTERS:
                yield from _as_it_stands(text, log)
                text = ""
            text += block
        if not log.cut_short:  # else it is not whole
            yield from _as_it_stands(text, log)
        log.check()


@dataclass(frozen=True)
class JsonlStretch(_Stretch):
    """One JSON object per line, the text in one of its fields."""

    text_field: str

    def documents(self, log: ReadLog) -> Iterator[str]:
        fields: set[str] = set()
        for block in blocks(self.path, log, self.start, self.stop, _LONGEST_RECORD_BYTES):
            for line in block.split("\n"):
                if line and not line.isspace():
                    yield from self._documents_of(line, log, fields)
        log.check(fields)

    def _documents_of(self, line: str, log: ReadLog, fields: set[str]) -> Iterator[str]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict) and self.text_field not in record:
            fields.update(record)
        yield from of_record(record.get(self.text_field) if isinstance(record, dict) else None, log)


@dataclass(frozen=True)
class ParquetRows:
    """Row groups [start, stop) of a Parquet file, the text in one of its columns."""

    path: Path
    start: int
    stop: int
    size_bytes: int
    text_field: str

    @property
    def name(self) -> str:
        return str(self.path)

    def documents(self, log: ReadLog) -> Iterator[str]:
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(self.path) as file:
                for group in range(self.start, self.stop):
                    for batch in file.iter_batches(batch_size=256, row_groups=[group], columns=[self.text_field], use_threads=False):
                        for encoded in batch.column(0).cast(pyarrow.large_binary()).to_pylist():
                            log.lines += 1
                            yield from of_record(decode(encoded, log) if encoded is not None else None, log)
                    log.on_bytes(self.size_bytes // (self.stop - self.start))
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"{self.path} cannot be read as Parquet data ({reason}); replace the file or leave it out of data.paths"
            ) from error
        log.check()


@dataclass(frozen=True)
class StdlibModule:
    """One source file of the Python standard library."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size

    def documents(self, log: ReadLog) -> Iterator[str]:
        for text in _stdlib_texts(self.path):
            yield from tidy(text, log)
        log.on_bytes(self.size_bytes)


@lru_cache(maxsize=None)
def _stdlib_texts(path: Path) -> list[str]:
    """Finding the prose in a module takes far longer than tokenizing it, and a tokenizer is trained in several passes."""
    return ["\n".join(paragraphs) for paragraphs in stdlib_documents(path)]


def parts_of(path: Path, text_field: str, whole: bool = False) -> list[Part]:
    """A file's parts: itself, or stretches where it is large and can be entered in its middle. `whole`: plain text is one document a file.
    Raises UserError."""
    packed, form = packing_of(path), format_of(path)
    if form == ".parquet":
        if packed:
            raise UserError(f"{path}: Parquet files are not read packed; unpack it (Parquet packs its own content)")
        return _row_groups(path, text_field)
    is_records = form in JSON_SUFFIXES
    if whole and not is_records:
        return [WholeFile(path, 0, None)]
    bounds = [0, None] if packed else _stretches(path, (b"\n",) if is_records else (b"\n\n", b"\n\r\n"))
    stretches = list(zip(bounds, bounds[1:]))
    if is_records:
        return [JsonlStretch(path, start, stop, text_field) for start, stop in stretches]
    return [TextStretch(path, start, stop) for start, stop in stretches]


def format_of(path: Path) -> str:
    """The suffix that says how a file is to be read, in small letters, without the one that says how it is packed."""
    return (path.with_suffix("") if packing_of(path) else path).suffix.lower()


def of_record(text: object, log: ReadLog) -> Iterator[str]:
    """A record's text as documents; a record without one is counted."""
    if isinstance(text, str) and text and not text.isspace():
        yield from tidy(text, log)
    else:
        log.bad_records += 1


def tidy(text: str, log: ReadLog) -> Iterator[str]:
    """A text as documents: none where it is blank, several where it is very long; counts them and what is not Unicode in them."""
    text = _LEADING.sub("", text)
    while len(text) > LONGEST_DOCUMENT_CHARACTERS:
        head, text = _cut(text)
        yield from tidy(head, log)
    end = len(text.rstrip())
    if not end:
        return
    blank_lines = text.find("\n", end)
    text = text[:blank_lines] if blank_lines >= 0 else text
    if not _is_unicode(text):  # JSON can spell half of a surrogate pair
        log.bad_unicode += 1
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    log.documents += 1
    yield text


def _as_it_stands(text: str, log: ReadLog) -> Iterator[str]:
    if text and not text.isspace():
        log.documents += 1
        yield text


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _cut(text: str) -> tuple[str, str]:
    end = text.rfind("\n", 0, LONGEST_DOCUMENT_CHARACTERS) + 1 or LONGEST_DOCUMENT_CHARACTERS
    return text[:end], text[end:]


def _stretches(path: Path, ends: tuple[bytes, ...]) -> list[int]:
    """Offsets that cut a plain file into stretches: about every `STRETCH_BYTES`, right behind one of `ends`."""
    try:
        size = path.stat().st_size
        bounds = [0]
        with path.open("rb") as file:
            while size - bounds[-1] > STRETCH_BYTES and (found := _find(file, bounds[-1] + STRETCH_BYTES, ends)) < size:
                bounds.append(found)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); mend its permissions or leave it out of data.paths") from error
    return [*bounds, size]


def _find(file, start: int, ends: tuple[bytes, ...]) -> int:
    """The offset behind the first of `ends` from `start` on; the file's size where there is none."""
    overlap = max(map(len, ends)) - 1
    while True:
        file.seek(start)
        window = file.read(_SEARCH_BYTES)
        found = [at + len(end) for end in ends if (at := window.find(end)) >= 0]
        if found:
            return start + min(found)
        if len(window) <= overlap:
            return start + len(window)
        start += len(window) - overlap


def _row_groups(path: Path, text_field: str) -> list[Part]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names, sizes = file.schema_arrow.names, [file.metadata.row_group(index).total_byte_size for index in range(file.num_row_groups)]
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read as Parquet data ({reason}); replace the file or leave it out of data.paths") from error
    if not sizes:
        return [TextStretch(path, 0, 0)]  # nothing to read, but a file that counts
    if text_field not in names:
        raise UserError(f"{path} has no column {text_field!r} but {', '.join(names)}; give data.text_field=...")
    parts: list[Part] = []
    start = size = 0
    for index, group_size in enumerate(sizes, start=1):
        size += group_size
        if size >= STRETCH_BYTES or index == len(sizes):
            parts.append(ParquetRows(path, start, index, size, text_field))
            start, size = index, 0
    return parts
