"""Writes that are still there after a power cut."""

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Bring a file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Everything in a folder, and the folder itself."""
    for path in [*folder.rglob("*"), folder]:
        flush(path)


def write(path: Path, text: str) -> None:
    """Write a text file and flush it; its name in the folder is the caller's to flush."""
    path.write_text(text, encoding="utf-8")
    flush(path)
