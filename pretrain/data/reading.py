"""Bytes of a file -> text: unpacked, decoded, in blocks of whole lines. What is wrong with a file is counted, and stops the reading
only where nothing sensible is left."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from pretrain.errors import Unfinished, UserError

if TYPE_CHECKING:
    from pretrain.data.zst import ZstFile

PACKED = (".bz2", ".gz", ".xz", ".zst")
LONGEST_LINE_BYTES = 1 << 20
"""A longer line of plain text is read in pieces, so that memory stays bounded."""

_BLOCK_BYTES = 1 << 20
_BAD_SHARE = 0.01
"""A file is no text where most lines hold something that is not, and so many characters are: one bad byte in a long line is a slip."""
_BROKEN_ARCHIVE = (EOFError, lzma.LZMAError, zlib.error)

OnBytes = Callable[[int], None]
"""Told how many more bytes of the sources (as they lie on disk) have been read."""


@dataclass
class ReadLog:
    """What was met on the way through one file (or a stretch of one); everything that is left out is counted."""

    name: str
    documents: int = 0
    """Documents read, of which some are left out:"""
    too_short: int = 0
    without_tokens: int = 0
    duplicates: int = 0
    lines: int = 0
    """Lines of text, or records."""
    bad_unicode: int = 0
    """Lines or records with something that is not Unicode text; it was replaced by U+FFFD."""
    bad_characters: int = 0
    """So many replacements."""
    characters: int = 0
    """Of all text read."""
    bad_records: int = 0
    """Records that are not JSON or have no text."""
    cut_short: str = ""
    """Why an archive could not be read to its end; what came before is used."""
    on_bytes: OnBytes = field(default=lambda num_bytes: None, repr=False, compare=False)

    def check(self, fields: set[str] = frozenset()) -> None:
        """Raise a UserError where most of the file is unusable; `fields` are those seen in records without text."""
        if self.cut_short and not self.documents:
            raise UserError(f"{self.name} cannot be read ({self.cut_short}); replace the file or leave it out of data.paths")
        if 2 * self.bad_unicode > self.lines and self.bad_characters > _BAD_SHARE * self.characters:
            raise UserError(
                f"{self.name} is not UTF-8 text: {self.bad_unicode:,} of {self.lines:,} lines hold bytes that are not; convert the file to "
                "UTF-8 or leave it out of data.paths"
            )
        if 2 * self.bad_records > self.lines:
            mend = f"; they have {', '.join(sorted(fields)[:8])}: give data.text_field=..." if fields else "; mend the file or leave it out"
            raise UserError(f"{self.name}: {self.bad_records:,} of {self.lines:,} records have no text in the field asked for{mend}")


def packing_of(path: Path) -> str:
    """`.bz2`, `.gz`, `.xz` or `.zst` where the name ends so, else nothing."""
    return path.suffix.lower() if path.suffix.lower() in PACKED else ""


def blocks(path: Path, log: ReadLog, start: int = 0, stop: int | None = None, longest_line: int = LONGEST_LINE_BYTES) -> Iterator[str]:
    """The text of a UTF-8 file, or of its bytes [start, stop), in pieces that end where a line ends.

    A byte order mark is dropped, line ends become a newline. Lines above `longest_line` bytes are cut.
    """
    rest, is_first = b"", start == 0
    try:
        if path.stat().st_size == 0:  # not every packer's reader takes nothing for an archive
            return
        with path.open("rb") as raw:
            raw.seek(start)
            for chunk in _chunks(_unpacked(raw, path), raw, stop, log):
                data = rest + chunk
                end = data.rfind(b"\n") + 1
                if not end and len(data) >= longest_line:
                    end = _last_character(data)
                rest = data[end:]
                if end:
                    yield _lines(data[:end], log, is_first)
                    is_first = False
    except OSError as error:
        if error.errno is None:  # bz2 and gzip say so of their own content
            log.cut_short = str(error)
            return
        raise Unfinished(f"{path} cannot be read ({error.strerror}); mend that, and the same command goes on") from error
    if rest and not log.cut_short:  # what an archive's broken end left of a line is no text
        yield _lines(rest, log, is_first)


def _chunks(stream: IO[bytes] | ZstFile, raw: BinaryIO, stop: int | None, log: ReadLog) -> Iterator[bytes]:
    """The unpacked bytes; a broken archive ends early, with a word in the log."""
    seen = raw.tell()
    while True:
        wanted = _BLOCK_BYTES if stop is None else min(_BLOCK_BYTES, stop - seen)
        try:
            chunk = stream.read1(wanted) if wanted > 0 else b""  # read would lose what it had before an archive's broken end
        except _BROKEN_ARCHIVE as error:
            log.cut_short = str(error)
            return
        position = raw.tell()
        log.on_bytes(position - seen)
        seen = position
        if not chunk:
            return
        yield chunk


def _unpacked(raw: BinaryIO, path: Path) -> Any:
    match packing_of(path):
        case ".bz2":
            return bz2.open(raw)
        case ".gz":
            return gzip.open(raw)
        case ".xz":
            return lzma.open(raw)
        case ".zst":
            from pretrain.data.zst import ZstFile

            return ZstFile(raw)
    return raw


def _lines(data: bytes, log: ReadLog, is_first: bool) -> str:
    text = decode(data, log)
    log.lines += text.count("\n") + (not text.endswith("\n"))
    if is_first:
        text = text.removeprefix("\ufeff")
    return text.replace("\r\n", "\n") if "\r" in text else text


def decode(data: bytes, log: ReadLog) -> str:
    """UTF-8 to text; what is not, and NUL characters, become U+FFFD and are counted."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", errors="replace")
        log.bad_unicode += sum(not _is_utf8(line) for line in data.split(b"\n"))
        log.bad_characters += text.count("\ufffd")
    if "\0" in text:  # as in UTF-16, or in no text at all
        log.bad_unicode += sum("\0" in line for line in text.split("\n"))
        log.bad_characters += text.count("\0")
        text = text.replace("\0", "\ufffd")
    log.characters += len(text)
    return text


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _last_character(data: bytes) -> int:
    """Where the last character of `data` begins, so that no character is cut in two."""
    end = len(data) - 1
    while end > len(data) - 4 and data[end] & 0xC0 == 0x80:
        end -= 1
    return max(end, 1)
