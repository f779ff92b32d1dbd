"""Text -> token files, once: streamed, in parallel, into a cache keyed by content and settings.

What is prepared appears under its final name only when it is whole: it is written into a temporary folder, flushed to disk and
renamed. Processes that want the same corpus take turns at a file lock, so that one prepares and the others find it ready.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain import durable
from pretrain.config.schema import Config
from pretrain.data import prepared, vocabulary_files
from pretrain.data.corpus import Corpus, Document, open_corpora
from pretrain.data.progress import Progress
from pretrain.data.sentences import sentences_of
from pretrain.data.splitting import TRAIN, VALID, split_by_hash
from pretrain.data.tokenizer import PUBLISHED_VOCAB_SIZE, build_tokenizer, save_tokenizer, special_tokens, tokenizer_kind
from pretrain.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_KEY_CHARACTERS = 24


def prepare(config: Config, *, progress: bool = True) -> Path:
    """The prepared folder of the corpus and tokenizer that `config` names, made first where the cache lacks it.

    Args:
        config: `data`, `tokenizer` and `model.family` are read.
        progress: tell on stderr what is going on and how far it has come.

    Returns:
        A folder that `open_prepared` opens.

    Raises:
        UserError: no text, text that cannot be read, a vocabulary that does not fit, a cache that cannot be written.
    """
    kind = tokenizer_kind(config.tokenizer, config.model.family)
    train, valid = open_corpora(config.data)
    settings = _settings(config, kind, train, valid)
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:_KEY_CHARACTERS]
    cache = Path(config.data.cache_dir).expanduser()
    folder = cache / f"{config.data.kind}-{kind}-{key}"
    if prepared.damage(folder) is None:
        return folder
    with _errors_of(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(folder, progress):
            if prepared.damage(folder) is not None:
                _build(config, kind, train, valid, settings, folder, progress)
    return folder


def _settings(config: Config, kind: str, train: Corpus, valid: Corpus | None) -> dict[str, Any]:
    """Everything that changes the result, and nothing else: the cache's key."""
    tokenizer = config.tokenizer
    vocabulary: dict[str, Any] = {"vocab_size": tokenizer.vocab_size or PUBLISHED_VOCAB_SIZE[kind]}
    if tokenizer.path is not None:
        files = vocabulary_files.find(Path(tokenizer.path).expanduser(), kind)
        vocabulary = {"vocab_size": tokenizer.vocab_size, "files": vocabulary_files.content_hashes(files)}
    if kind == "wordpiece":
        vocabulary["lowercase"] = tokenizer.lowercase
    held_out = {"hash": valid.content_hash()} if valid else {"fraction": config.data.validation_fraction}
    return {
        "format_version": prepared.FORMAT_VERSION,
        "source_hash": train.content_hash(),
        "validation": held_out,
        "tokenizer_kind": kind,
        "tokenizer": vocabulary,
    }


def _build(config: Config, kind: str, train: Corpus, valid: Corpus | None, settings: dict[str, Any], folder: Path, progress: bool) -> None:
    """Make `folder`. Called with the lock held, so what lies half-made beside it belongs to a process that is dead."""
    for leftover in folder.parent.glob(f"{folder.name}.part-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if progress:
        print(f"preparing {len(train.files)} source files ({train.num_bytes() / 1e6:.1f} MB) in {folder}", file=sys.stderr, flush=True)
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
    try:
        tokenizer = build_tokenizer(config.tokenizer, kind, lambda: _texts(train, progress))
        save_tokenizer(tokenizer, part / prepared.TOKENIZER_FOLDER, config.tokenizer.lowercase)
        _write_splits(config, kind, tokenizer, train, valid, settings, part, progress)
        durable.flush_tree(part)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
        durable.flush(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _texts(corpus: Corpus, progress: bool) -> Iterator[str]:
    """The corpus for training a tokenizer."""
    with Progress("training the tokenizer", corpus.num_bytes(), progress) as bar:
        empty = True
        for document in corpus.documents(bar.advance):
            empty = False
            yield "\n".join(document)
    if empty:
        raise _no_text("data.paths", corpus)


def _write_splits(
    config: Config,
    kind: str,
    tokenizer: Tokenizer,
    train: Corpus,
    valid: Corpus | None,
    settings: dict[str, Any],
    part: Path,
    progress: bool,
) -> None:
    import numpy as np

    from pretrain.data.token_files import SplitWriter

    special = special_tokens(tokenizer)
    pieces_of: Callable[[Document], list[str]] = sentences_of if kind == "wordpiece" else lambda lines: ["\n".join(lines)]
    tokenizer.encode_special_tokens = True
    writers = {split: SplitWriter(part, split, tokenizer, special.eot) for split in (TRAIN, VALID)}
    with Progress("tokenizing", train.num_bytes() + (valid.num_bytes() if valid else 0), progress) as bar:
        for split, document in _documents_by_split(train, valid, config.data.validation_fraction, bar.advance):
            writers[split].add(pieces_of(document))
    checksums = {name: digest for writer in writers.values() for name, digest in writer.close().items()}
    for split, writer in writers.items():
        if not writer.counts["tokens"]:
            raise _no_text("data.valid_paths" if split == VALID and valid else "data.paths", valid if split == VALID and valid else train)
    np.save(part / "unigram.npy", writers[TRAIN].unigram_counts)
    for path in [part / "unigram.npy", *(part / prepared.TOKENIZER_FOLDER).iterdir()]:
        checksums[path.relative_to(part).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = {
        "format_version": prepared.FORMAT_VERSION,
        "settings": settings,
        "source_hash": settings["source_hash"],
        "tokenizer_hash": checksums[f"{prepared.TOKENIZER_FOLDER}/tokenizer.json"],
        "vocab_size": tokenizer.get_vocab_size(),
        "special_tokens": asdict(special),
        "token_dtype": writers[TRAIN].dtype.str,
        "counts": {split: writer.counts for split, writer in writers.items()},
        "files": {name: {"bytes": (part / name).stat().st_size, "sha256": digest} for name, digest in sorted(checksums.items())},
        "versions": _versions(),
    }
    (part / prepared.MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _documents_by_split(
    train: Corpus, valid: Corpus | None, fraction: float, on_bytes: Callable[[int], None]
) -> Iterator[tuple[str, Document]]:
    if valid is None:
        yield from split_by_hash(train.documents(on_bytes), fraction)
        return
    for split, corpus in ((TRAIN, train), (VALID, valid)):
        for document in corpus.documents(on_bytes):
            yield split, document


@contextmanager
def _alone(folder: Path, progress: bool) -> Iterator[None]:
    """Hold the lock of `folder`; the system drops it when its holder dies."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder.with_name(folder.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if progress:
            print(f"another process is preparing {folder}; waiting for it", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _errors_of(cache: Path) -> Iterator[None]:
    """A cache that cannot be written is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise UserError(f"data.cache_dir={cache} cannot be written ({error.strerror or error}); give a folder that can") from error


def _no_text(key: str, corpus: Corpus) -> UserError:
    return UserError(f"{key} holds no text ({len(corpus.files)} files, {corpus.num_bytes()} bytes on disk); give files with text in them")


def _versions() -> dict[str, str]:
    import numpy
    import tokenizers

    return {"python": sys.version.split()[0], "numpy": numpy.__version__, "tokenizers": tokenizers.__version__}
