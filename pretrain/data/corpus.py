"""Where text comes from: the sources of a corpus, and its documents one after the other.

A document is a list of lines, none of them blank. Reading streams: nothing but one document is held.
"""

import bz2
import glob
import gzip
import hashlib
import lzma
import os.path
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from pretrain.config.schema import DataConfig, StdlibDataConfig, TextDataConfig
from pretrain.data.stdlib_text import stdlib_documents, stdlib_files
from pretrain.errors import UserError

LONGEST_DOCUMENT_CHARACTERS = 1 << 20
"""A text without blank lines is cut into documents of about this length, so that memory stays bounded."""

_OPENERS: dict[str, Any] = {".bz2": bz2.open, ".gz": gzip.open, ".xz": lzma.open}
_BROKEN_ARCHIVE = (EOFError, OSError, lzma.LZMAError, zlib.error)
_HASH_CHUNK_BYTES = 1 << 20

Document = list[str]
OnBytes = Callable[[int], None]
"""Told how many more bytes of the sources (as they lie on disk) have been read."""


@dataclass(frozen=True)
class Corpus:
    """An ordered list of source files of one kind.

    `kind` is `stdlib` or `text`; `files` exist, each once.
    """

    kind: str
    files: tuple[Path, ...]

    def documents(self, on_bytes: OnBytes = lambda num_bytes: None) -> Iterator[Document]:
        """Every document in order, the same at every call. Raises UserError for a file that is not UTF-8 text."""
        for path in self.files:
            if self.kind == "stdlib":
                yield from _stdlib_documents_once(path)
                on_bytes(path.stat().st_size)
            else:
                yield from text_documents(path, on_bytes)

    def num_bytes(self) -> int:
        """Size of the sources on disk, compressed as they are."""
        return sum(path.stat().st_size for path in self.files)

    def content_hash(self) -> str:
        """Hexadecimal SHA-256 over the sources' content in order; where the files lie and what they are called does not matter."""
        total = hashlib.sha256(self.kind.encode())
        for path in self.files:
            digest = hashlib.sha256()
            try:
                with path.open("rb") as file:
                    while chunk := file.read(_HASH_CHUNK_BYTES):
                        digest.update(chunk)
            except OSError as error:
                raise UserError(f"{path} cannot be read ({error.strerror}); mend its permissions or leave it out of data.paths") from error
            total.update(f"{path.suffix if path.suffix in _OPENERS else ''}:{digest.hexdigest()};".encode())
        return total.hexdigest()


def documents(data: DataConfig) -> Iterator[Document]:
    """The documents of the training text that `data` names, streamed."""
    return open_corpora(data)[0].documents()


def open_corpora(data: DataConfig) -> tuple[Corpus, Corpus | None]:
    """The training text and, where it is given apart, the validation text. Raises UserError where a path leads nowhere."""
    if isinstance(data, StdlibDataConfig):
        files = stdlib_files()
        if not files:
            raise UserError("this Python carries no standard library sources to read; give your own text: data=text data.paths=[...]")
        return Corpus("stdlib", tuple(files)), None
    assert isinstance(data, TextDataConfig), f"no source for data.kind={data.kind}"
    train = Corpus("text", _files("data.paths", data.paths))
    if not data.valid_paths:
        return train, None
    valid = Corpus("text", _files("data.valid_paths", data.valid_paths))
    shared = set(train.files).intersection(valid.files)
    if shared:
        raise UserError(f"{min(shared)} is in data.paths and in data.valid_paths; leave it in one of them")
    return train, valid


def text_documents(path: Path, on_bytes: OnBytes) -> Iterator[Document]:
    """The documents of one text file: runs of lines between blank lines."""
    document: Document = []
    num_characters = 0
    for line in _lines(path, on_bytes):
        blank = not line or line.isspace()
        if not blank:
            document.append(line)
            num_characters += len(line) + 1
        if document and (blank or num_characters >= LONGEST_DOCUMENT_CHARACTERS):
            yield document
            document, num_characters = [], 0
    if document:
        yield document


@lru_cache(maxsize=None)
def _stdlib_documents_once(path: Path) -> list[Document]:
    return list(stdlib_documents(path))


def _files(key: str, paths: list[str]) -> tuple[Path, ...]:
    """The files behind paths, folders (all files below, sorted, hidden ones left out) and glob patterns, each once."""
    if not paths:
        raise UserError(f"{key} is empty; give text files, folders or glob patterns, for example {key}=[corpus/*.txt]")
    found: dict[Path, None] = {}
    for pattern in paths:
        literal = Path(pattern).expanduser()
        matches = [literal] if os.path.exists(literal) else sorted(map(Path, glob.glob(str(literal), recursive=True)))
        if not matches:
            wrong = "matches no file" if glob.has_magic(pattern) else "does not exist"
            raise UserError(f"{key}: {pattern} {wrong}; mend the path (relative paths start at {Path.cwd()})")
        for match in matches:
            for file in _files_below(match) if match.is_dir() else [match]:
                found[file.absolute()] = None
    if not found:
        raise UserError(f"{key}: {', '.join(paths)} holds no files; give folders that hold text files")
    return tuple(found)


def _files_below(folder: Path) -> list[Path]:
    def hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(folder).parts)

    return sorted(path for path in folder.rglob("*") if path.is_file() and not hidden(path))


def _lines(path: Path, on_bytes: OnBytes) -> Iterator[str]:
    """The lines of a UTF-8 file without their ends, unpacked where its name says it is packed; a byte order mark is dropped."""
    offset = 0
    try:
        with path.open("rb") as raw:
            opener = _OPENERS.get(path.suffix)
            seen = 0
            for line in opener(raw) if opener else raw:
                yield _decode(line, path, offset)
                offset += len(line)
                seen = _report(raw, seen, on_bytes)
    except _BROKEN_ARCHIVE as error:
        what = f"as {path.suffix[1:]} data" if path.suffix in _OPENERS else "as a text file"
        raise UserError(f"{path} cannot be read {what} ({error}); replace the file or leave it out of data.paths") from error


def _decode(line: bytes, path: Path, offset: int) -> str:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        unpacked = " of its unpacked text" if path.suffix in _OPENERS else ""
        raise UserError(
            f"{path} is not UTF-8 text: byte 0x{line[error.start]:02x} at byte offset {offset + error.start}{unpacked}; "
            "convert the file to UTF-8 or leave it out of data.paths"
        ) from error
    if offset == 0:
        text = text.removeprefix("\ufeff")
    return text.rstrip("\r\n")


def _report(raw: BinaryIO, seen: int, on_bytes: OnBytes) -> int:
    position = raw.tell()
    if position > seen:
        on_bytes(position - seen)
    return position
