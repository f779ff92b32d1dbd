"""Text -> token files, once: on all cores, in bounded memory, into a cache keyed by content and settings.

What is prepared appears under its final name only when it is whole. Until then it grows in a folder beside it, `<name>.part`, which a
preparation that was interrupted goes on with. Processes that want the same corpus take turns at a file lock, so that one prepares and the
others find it ready.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pretrain.config.schema import Config, DataConfig, MixtureDataConfig, PreparedDataConfig
from pretrain.data import prepared, tokenizer_files
from pretrain.data.corpus import Source, open_sources
from pretrain.data.manifest import FORMAT_VERSION
from pretrain.data.preparation import Preparation
from pretrain.data.tokenizer import tokenizer_kind
from pretrain.errors import UserError
from pretrain.user_path import user_path

_KEY_CHARACTERS = 24


def prepare(config: Config, *, output: Path | None = None, progress: bool = True) -> Path:
    """The prepared folder of the corpus and tokenizer that `config` names, made first where it is not there.

    Args:
        config: `data`, `tokenizer` and `model.family` are read.
        output: the folder to make, instead of one in the cache.
        progress: tell on stderr what is going on and how far it has come.

    Returns:
        A folder that `open_prepared` opens; every file in it has been compared with its checksum.

    Raises:
        UserError: no text, text that cannot be read, a vocabulary that does not fit, a folder that cannot be written or holds something
            else, or, with data=prepared, one that is not whole.
    """
    if isinstance(config.data, PreparedDataConfig):
        return _given(config, progress)
    kind = tokenizer_kind(config.tokenizer, config.model.family)
    sources = open_sources(config.data, progress)
    settings = _settings(config, kind, sources)
    folder = output.resolve() if output else _in_cache(config, settings)
    with _errors_of(folder, output):
        _refuse_inside_the_corpus(config.data, folder, _key_of(folder, output))
        if _is_whole(folder, settings, output, progress):
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder, progress):
            if not _is_whole(folder, settings, output, progress=False):

                def unchanged() -> bool:
                    return _settings(config, kind, open_sources(config.data)) == settings

                Preparation(config, sources, settings, folder, unchanged, progress).run()
    return folder


def folder_of(config: Config, output: Path | None = None) -> Path:
    """Where the prepared corpus lies, whether or not it does yet. Raises UserError as `prepare` does."""
    if isinstance(config.data, PreparedDataConfig):
        return user_path(config.data.path, "data.path=")
    kind = tokenizer_kind(config.tokenizer, config.model.family)
    return output.resolve() if output else _in_cache(config, _settings(config, kind, open_sources(config.data)))


def _in_cache(config: Config, settings: dict[str, Any]) -> Path:
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:_KEY_CHARACTERS]
    return user_path(config.data.cache_dir, "data.cache_dir=") / f"{config.data.kind}-{settings['tokenizer_kind']}-{key}"


def _given(config: Config, progress: bool) -> Path:
    folder = folder_of(config)
    if not os.path.isdir(folder):
        raise UserError(f"data.path={config.data.path} is not a folder; give one that python -m pretrain.prepare made")
    prepared.verify(folder, progress)
    kind, wanted = prepared.whole_manifest(folder)["settings"]["tokenizer_kind"], tokenizer_kind(config.tokenizer, config.model.family)
    if kind != wanted:
        raise UserError(
            f"data.path={config.data.path} was prepared with a {kind} tokenizer; model.family={config.model.family} needs {wanted}"
        )
    return folder


def _is_whole(folder: Path, settings: dict[str, Any], output: Path | None, progress: bool) -> bool:
    """Whether `folder` holds what `settings` ask for. What lies damaged in the cache is made again; a folder that the user named is never
    overwritten: UserError where it holds anything else."""
    if output and os.path.ismount(folder):
        raise UserError(f"--output {output} is a mount point and cannot be given its content at once; give a folder below it")
    if not folder.exists() or (output and folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = prepared.whole_manifest(folder)["settings"]
        if found == settings:
            prepared.verify(folder, progress)
            return True
    except prepared.Damaged as damaged:
        if output:
            raise
        if progress:
            print(f"{folder} is not whole ({damaged.problem}); preparing it again", file=sys.stderr, flush=True)
        return False
    raise UserError(f"{folder} was prepared from another corpus or with other settings; give another folder, or delete it")


def _refuse_inside_the_corpus(data: DataConfig, folder: Path, key: str) -> None:
    """A folder that a corpus is read from must not come to hold its own tokens."""
    sources = data.mixture.values() if isinstance(data, MixtureDataConfig) else [data]
    paths = [path for source in sources for path in [*getattr(source, "paths", []), *getattr(source, "valid_paths", [])]]
    for path in paths:
        if folder.resolve().is_relative_to(place := user_path(path).resolve()):
            raise UserError(f"{key} lies inside {place}, from which text is read; give another folder")


def _settings(config: Config, kind: str, sources: Sequence[Source]) -> dict[str, Any]:
    """Everything that changes the result, and nothing else: the cache's key."""
    data = config.data
    settings: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "sources": [[source.name, *(text.identity for text in source.texts())] for source in sources],
        "tokenizer_kind": kind,
        "tokenizer": tokenizer_files.identity(config.tokenizer, kind),
        "min_document_characters": data.min_document_characters,
        "deduplicate": data.deduplicate,
    }
    if any(source.valid is None for source in sources):
        settings["validation_fraction"] = data.validation_fraction
    return settings


@contextmanager
def _alone(folder: Path, progress: bool) -> Iterator[None]:
    """Hold the lock of `folder`; the system drops it when its holder dies."""
    from filelock import FileLock, Timeout

    lock_file = folder.with_name(folder.name + ".lock")
    with tempfile.TemporaryFile(dir=folder.parent):  # not the lock's own file, which is the lock where the file system has no flock
        pass
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if progress:
            print(f"another process is preparing {folder}; waiting for it (if none is, delete {lock_file})", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _errors_of(folder: Path, output: Path | None) -> Iterator[None]:
    """A folder that cannot be written is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{_key_of(folder, output)} cannot be written ({error.strerror or error}); give a folder that can") from error


def _key_of(folder: Path, output: Path | None) -> str:
    """What the user gave that led to `folder`."""
    return f"--output {output}" if output else f"data.cache_dir={folder.parent}"
