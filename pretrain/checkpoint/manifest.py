"""What a checkpoint says of itself, in plain JSON: how far the run was, what it was, and the checksum of each of its files.

The manifest is written last and holds a checksum of its own, so that a folder with a manifest that agrees with its files is whole.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pretrain import durable
from pretrain.checkpoint.progress import Progress
from pretrain.errors import UserError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"

_THREADS = 4

Manifest = dict[str, Any]
"""format_version; progress (see Progress); files: name -> bytes, sha256; and what `about` adds: config, data_fingerprint,
vocabulary_hash, wandb_id, ranks, versions."""


class Damaged(UserError):
    """A checkpoint that is not whole; `problem` says what of it."""

    def __init__(self, folder: Path, problem: str) -> None:
        super().__init__(f"{folder} is not a whole checkpoint ({problem}); name another one")
        self.folder, self.problem = folder, problem

    def __reduce__(self) -> tuple:
        return Damaged, (self.folder, self.problem)


def describe_file(path: Path) -> dict[str, Any]:
    """The manifest's entry for a file: its size in bytes and its hexadecimal SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def write(folder: Path, progress: dict[str, Any], files: dict[str, dict[str, Any]], about: dict[str, Any]) -> None:
    """Give `folder` its manifest, in one instant; replaces an earlier one."""
    manifest = {"format_version": FORMAT_VERSION, "progress": progress, "files": dict(sorted(files.items())), **about}
    temporary = folder / f"{MANIFEST}.tmp"
    durable.write(temporary, _text(manifest))
    temporary.replace(folder / MANIFEST)
    durable.flush(folder)


def read(folder: Path) -> Manifest:
    """The manifest, if it is as it was written and all files that it names are there in their size. Raises Damaged."""
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        manifest = json.loads(text)
        version = manifest["format_version"]
    except FileNotFoundError as error:
        raise Damaged(folder, f"{MANIFEST} is missing") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Damaged(folder, f"{MANIFEST} cannot be read") from error
    manifest.pop("checksum", None)
    if text != _text(manifest):
        raise Damaged(folder, f"{MANIFEST} does not match its checksum")
    if version != FORMAT_VERSION:
        raise Damaged(folder, f"its format is version {version}, this release reads {FORMAT_VERSION}")
    for name, file in manifest["files"].items():
        try:
            size = os.stat(folder / name).st_size
        except OSError as error:
            raise Damaged(folder, f"{name} is missing") from error
        if size != file["bytes"]:
            raise Damaged(folder, f"{name} has {size:,} bytes instead of {file['bytes']:,}")
    return manifest


def progress_of(manifest: Manifest) -> Progress:
    """How far the run was when the checkpoint was written."""
    return Progress(**manifest["progress"])


def verify(folder: Path, share: tuple[int, int] = (0, 1), on_file: Callable[[int], None] = lambda num_bytes: None) -> Manifest:
    """The manifest, after comparing files with their checksums: all of them, or with `share` (k, n) the k-th part of n. Raises Damaged."""
    manifest = read(folder)
    first, step = share
    names = sorted(manifest["files"])[first::step]
    with ThreadPoolExecutor(_THREADS) as pool:
        for name, found in zip(names, pool.map(lambda name: _described(folder, name), names), strict=True):
            if found != manifest["files"][name]:
                raise Damaged(folder, f"{name} does not match its checksum")
            on_file(found["bytes"])
    return manifest


def total_bytes(manifest: Manifest) -> int:
    """Size of a checkpoint, without the manifest."""
    return sum(file["bytes"] for file in manifest["files"].values())


def described(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The manifest's entries of several files."""
    return {name: describe_file(folder / name) for name in names}


def _described(folder: Path, name: str) -> dict[str, Any]:
    try:
        return describe_file(folder / name)
    except OSError as error:
        raise Damaged(folder, f"{name} cannot be read ({error.strerror})") from error


def _text(manifest: Manifest) -> str:
    """The exact text of a manifest's file: any other text is a damaged one."""
    checksum = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return json.dumps({**manifest, "checksum": checksum}, indent=1) + "\n"
