"""SHA-256 of source files, remembered by path, size and time of change, so that a large corpus is read for it only once."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pretrain.data.progress import Progress
from pretrain.errors import UserError

_CHUNK_BYTES = 1 << 20
_THREADS = 8
_FILES_AT_ONCE = 1024
"""The pool keeps two kilobytes for each file that waits."""
_WORTH_REMEMBERING_BYTES = 1 << 24


class FileHashes:
    """Hashes files; what was hashed before and has not changed since is looked up in the cache folder.

    Args:
        cache: folder of the memory, `file_hashes.json`. It need not exist, and one that cannot be written is no error here.
        progress: tell on stderr how far it has come.
    """

    def __init__(self, cache: Path, progress: bool = False) -> None:
        self._path, self._progress = cache / "file_hashes.json", progress
        self._known: dict[str, list] = self._read()

    def of(self, files: Sequence[Path]) -> list[str]:
        """Hexadecimal SHA-256 of each file. Raises UserError for one that cannot be read."""
        stamps = [_stamp(path) for path in files]
        missing = [index for index, path in enumerate(files) if self._known.get(str(path), [None])[0] != stamps[index]]
        total_bytes = sum(stamps[index][0] for index in missing)
        with Progress("hashing the corpus", total_bytes, self._progress) as bar, ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(missing), _FILES_AT_ONCE):
                several = missing[start : start + _FILES_AT_ONCE]
                for index, digest in zip(several, pool.map(lambda index: sha256_of(files[index], bar.advance), several)):
                    self._known[str(files[index])] = [stamps[index], digest]
        if total_bytes >= _WORTH_REMEMBERING_BYTES:
            self._write()
        return [self._known[str(path)][1] for path in files]

    def _read(self) -> dict[str, list]:
        try:
            known = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        entries = known.items() if isinstance(known, dict) else ()
        return {path: entry for path, entry in entries if isinstance(entry, list) and len(entry) == 2}

    def _write(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(self._read() | self._known))
            temporary.replace(self._path)
        except OSError:
            pass  # only the next start is slower


def sha256_of(path: Path, on_bytes=lambda num_bytes: None) -> str:
    """Hexadecimal SHA-256 of a file's content. Raises UserError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                on_bytes(len(chunk))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); mend its permissions or leave it out") from error
    return digest.hexdigest()


def _stamp(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); mend its permissions or leave it out") from error
    return [status.st_size, status.st_mtime_ns]
