"""From `data` of a configuration to sources: which parts of which text, and what they are known by in the cache."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain.config.schema import (
    DataConfig,
    DatasetConfig,
    FilesConfig,
    HubDataConfig,
    MixtureDataConfig,
    SourceConfig,
    StdlibDataConfig,
    TextDataConfig,
)
from pretrain.data.file_hashes import FileHashes
from pretrain.data.hub import HubDataset
from pretrain.data.parts import JSON_SUFFIXES, Part, StdlibModule, format_of, parts_of
from pretrain.data.reading import ReadLog, packing_of
from pretrain.data.stdlib_text import stdlib_files
from pretrain.errors import UserError
from pretrain.user_path import user_path

_RECORDS = (*JSON_SUFFIXES, ".parquet")


@dataclass(frozen=True)
class Text:
    """Text to be read: the same documents in the same order every time."""

    key: str
    """The setting that names it, for messages."""
    identity: dict[str, Any]
    """What the documents follow from: content hashes of files, or the name of a data set. JSON values."""
    parts: Callable[[], list[Part]]
    """Lists what there is to read; may ask the network."""

    def documents(self) -> Iterator[str]:
        """Every document, streamed."""
        for part in self.parts():
            yield from part.documents(ReadLog(part.name))


@dataclass(frozen=True)
class Source:
    """One source of the corpus: its training text and, where that is given apart, its validation text."""

    name: str
    weight: float
    train: Text
    valid: Text | None

    def texts(self) -> list[Text]:
        """All that is to be read."""
        return [self.train, self.valid] if self.valid else [self.train]


def open_sources(data: DataConfig, progress: bool = False) -> list[Source]:
    """The sources that `data` names, at least one. Raises UserError where a path leads nowhere."""
    hashes = FileHashes(user_path(data.cache_dir, "data.cache_dir="), progress)
    match data:
        case StdlibDataConfig():
            return [Source("stdlib", 1.0, _stdlib(hashes), None)]
        case TextDataConfig():
            return [_files_source("text", 1.0, data, "data", hashes)]
        case HubDataConfig():
            return [_hub_source("hub", 1.0, data, "data", hashes)]
        case MixtureDataConfig():
            return [_mixed(name, source, hashes) for name, source in data.mixture.items()]
    raise AssertionError(f"no source for data.kind={data.kind}")


def _mixed(name: str, source: SourceConfig, hashes: FileHashes) -> Source:
    make = _files_source if source.paths else _hub_source
    return make(name, source.weight, source, f"data.mixture.{name}", hashes)


def _stdlib(hashes: FileHashes) -> Text:
    files = tuple(stdlib_files())
    if not files:
        raise UserError("this Python carries no standard library sources to read; give your own text: data=text data.paths=[...]")
    return Text("data", {"stdlib": _content_hash(files, hashes)}, lambda: [StdlibModule(path) for path in files])


def _files_source(name: str, weight: float, data: FilesConfig, key: str, hashes: FileHashes) -> Source:
    train = _files(f"{key}.paths", data.paths)
    valid = _files(f"{key}.valid_paths", data.valid_paths) if data.valid_paths else ()
    real = {path.resolve() for path in train}
    shared = [path for path in valid if path.resolve() in real]
    if shared:
        raise UserError(f"{shared[0]} is in {key}.paths and in {key}.valid_paths; leave it in one of them")

    def text(files: tuple[Path, ...], files_key: str) -> Text:
        identity: dict[str, Any] = {"files": _content_hash(files, hashes)}
        if any(format_of(path) in _RECORDS for path in files):
            identity["text_field"] = data.text_field
        whole = data.documents == "file"
        if whole and any(format_of(path) not in _RECORDS for path in files):
            identity["documents"] = data.documents
        return Text(files_key, identity, lambda: [part for path in files for part in parts_of(path, data.text_field, whole)])

    return Source(name, weight, text(train, f"{key}.paths"), text(valid, f"{key}.valid_paths") if valid else None)


def _hub_source(name: str, weight: float, data: DatasetConfig, key: str, hashes: FileHashes) -> Source:
    def text(split: str, split_key: str) -> Text:
        dataset = HubDataset(data.name, data.subset, split, data.revision, data.text_field, data.streaming)
        identity: dict[str, Any] = {"subset": data.subset, "split": split, "text_field": data.text_field}
        if dataset.folder:
            identity["folder"] = _content_hash(_files(split_key, [data.name]), hashes)
        else:
            identity |= {"name": data.name, "revision": data.revision}
        return Text(split_key, identity, dataset.parts)

    valid = text(data.valid_split, f"{key}.valid_split") if data.valid_split else None
    return Source(name, weight, text(data.split, f"{key}.name"), valid)


def _content_hash(files: tuple[Path, ...], hashes: FileHashes) -> str:
    """Hexadecimal SHA-256 over the files' content in order; where they lie does not matter, nor what they are called but for the suffix
    that says how they are to be read."""
    total = hashlib.sha256()
    for path, digest in zip(files, hashes.of(files), strict=True):
        suffix = format_of(path) if format_of(path) in _RECORDS else ""
        total.update(f"{suffix}{packing_of(path)}:{digest};".encode())
    return total.hexdigest()


def _files(key: str, paths: list[str]) -> tuple[Path, ...]:
    """The files behind paths, folders (all files below, sorted, hidden ones left out) and glob patterns, each once."""
    if not paths:
        raise UserError(f"{key} is empty; give files, folders or glob patterns, for example {key}=[corpus/*.txt]")
    found: dict[Path, None] = {}
    for pattern in paths:
        literal = user_path(pattern, f"{key}: ")
        matches = [literal] if os.path.exists(literal) else sorted(map(Path, glob.glob(str(literal), recursive=True)))
        if not matches:
            wrong = "matches no file" if glob.has_magic(pattern) else "does not exist"
            raise UserError(f"{key}: {pattern} {wrong}; mend the path (relative paths start at {Path.cwd()})")
        for match in matches:
            for file in _files_below(match) if match.is_dir() else [match]:
                found[file.absolute()] = None
    if not found:
        raise UserError(f"{key}: {', '.join(paths)} holds no files; give folders that hold text files")
    for file in found:
        if not file.is_file():
            raise UserError(f"{key}: {file} is {'not a file' if file.exists() else 'a link to nothing'}; leave it out or mend it")
    return tuple(found)


def _files_below(folder: Path) -> list[Path]:
    """All files, links followed, but for hidden ones. Raises UserError for a folder that cannot be read."""

    def refuse(error: OSError) -> None:
        raise UserError(
            f"{error.filename} cannot be read ({error.strerror}); mend its permissions or leave it out of data.paths"
        ) from error

    files: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        if (real := os.path.realpath(place)) in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(files)
