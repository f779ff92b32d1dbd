"""A prepared corpus: token files mapped into memory, and what the manifest says about them. The folder needs nothing else, wherever it lies."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain.data.file_hashes import sha256_of
from pretrain.data.manifest import FORMAT_VERSION, MANIFEST, TOKENIZER_FOLDER, checksum_of
from pretrain.data.progress import Progress
from pretrain.data.tokenizer import SpecialTokens
from pretrain.errors import UserError

if TYPE_CHECKING:
    import numpy as np

_THREADS = 8


@dataclass(frozen=True)
class Split:
    """One split of one source, memory-mapped.

    Attributes:
        tokens: uint16 or uint32 [tokens].
        sentence_starts: int64 [sentences + 1], offsets into `tokens`.
        document_starts: int64 [documents + 1], offsets into the sentences.
    """

    tokens: np.ndarray
    sentence_starts: np.ndarray
    document_starts: np.ndarray


@dataclass(frozen=True)
class PreparedSource:
    """One source of the corpus.

    Attributes:
        name: as the configuration calls it.
        weight: how often it is drawn from, relative to the others, unless a configuration says otherwise.
        train, valid: its two splits.
        unigram_counts: int64 [vocab_size], how often each id occurs in the training tokens.
    """

    name: str
    weight: float
    train: Split
    valid: Split
    unigram_counts: np.ndarray


@dataclass(frozen=True)
class Prepared:
    """A prepared folder.

    Attributes:
        folder: where it lies.
        manifest: counts, settings, hashes, versions.
        fingerprint: the same for the same tokens and tokenizer, whatever the path or the machine; a resumed run compares it.
        tokenizer_dir: what AutoTokenizer.from_pretrained and load_tokenizer read.
        vocab_size: entries of the tokenizer.
        special: ids of its special tokens.
        sources: at least one.
    """

    folder: Path
    manifest: dict[str, Any]
    fingerprint: str
    tokenizer_dir: Path
    vocab_size: int
    special: SpecialTokens
    sources: tuple[PreparedSource, ...]


class Damaged(UserError):
    """A prepared folder that is not whole; `problem` says what of it."""

    def __init__(self, folder: Path, problem: str) -> None:
        super().__init__(f"{folder} is not a whole prepared corpus ({problem}); delete the folder and prepare again")
        self.folder, self.problem = folder, problem

    def __reduce__(self) -> tuple:
        return Damaged, (self.folder, self.problem)


def open_prepared(folder: str | Path) -> Prepared:
    """Open what `prepare` returned; raises Damaged where the folder is not whole (by its files' sizes, see `verify`)."""
    import numpy as np

    folder = Path(folder)
    manifest = whole_manifest(folder)

    def split(source: Path, name: str) -> Split:
        def mapped(part: str, dtype: str) -> np.ndarray:
            return np.memmap(source / f"{name}.{part}", dtype=dtype, mode="r")

        return Split(mapped("tokens", manifest["token_dtype"]), mapped("sentence_starts", "<i8"), mapped("document_starts", "<i8"))

    def source(name: str, about: dict[str, Any]) -> PreparedSource:
        place = folder / name
        return PreparedSource(name, about["weight"], split(place, "train"), split(place, "valid"), np.load(place / "unigram.npy"))

    return Prepared(
        folder=folder,
        manifest=manifest,
        fingerprint=_fingerprint(manifest),
        tokenizer_dir=folder / TOKENIZER_FOLDER,
        vocab_size=manifest["vocab_size"],
        special=SpecialTokens(**manifest["special_tokens"]),
        sources=tuple(source(name, about) for name, about in manifest["sources"].items()),
    )


def verify(folder: Path, progress: bool = False) -> int:
    """Compare every file of a prepared folder with its checksum; returns how many there are. Raises Damaged naming the first that differs."""
    files = whole_manifest(folder)["files"]
    with (
        Progress("checking the prepared files", sum(file["bytes"] for file in files.values()), progress) as bar,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        for name, digest in zip(files, pool.map(lambda name: sha256_of(folder / name, bar.advance), files)):
            if digest != files[name]["sha256"]:
                raise Damaged(folder, f"{name} does not match its checksum")
    return len(files)


def whole_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, where it and all files that it names are there in their size. Raises Damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        version = manifest.get("format_version")
    except (OSError, ValueError, AttributeError) as error:
        raise Damaged(folder, f"no readable {MANIFEST}") from error
    if version != FORMAT_VERSION:
        raise Damaged(folder, f"format version {version}, this release reads {FORMAT_VERSION}")
    checksum = manifest.pop("checksum", None)
    if checksum != checksum_of(manifest):
        raise Damaged(folder, f"{MANIFEST} does not match its checksum")
    for name, file in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            raise Damaged(folder, f"{name} is missing or cut short")
    return manifest


def _fingerprint(manifest: dict[str, Any]) -> str:
    """Over the content of all files, so that equal data made twice compare equal."""
    content = {name: file["sha256"] for name, file in manifest["files"].items()}
    return hashlib.sha256(json.dumps([manifest["format_version"], content], sort_keys=True).encode()).hexdigest()
