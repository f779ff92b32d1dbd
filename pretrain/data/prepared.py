"""A prepared corpus, opened: token files mapped into memory, and what the manifest says about them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain.data.tokenizer import SpecialTokens
from pretrain.errors import UserError

if TYPE_CHECKING:
    import numpy as np

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
TOKENIZER_FOLDER = "tokenizer"


@dataclass(frozen=True)
class Split:
    """One split, memory-mapped.

    Attributes:
        tokens: uint16 or uint32 [tokens].
        sentence_starts: int64 [sentences + 1], offsets into `tokens`.
        document_starts: int64 [documents + 1], offsets into the sentences.
    """

    tokens: np.ndarray
    sentence_starts: np.ndarray
    document_starts: np.ndarray


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
        unigram_counts: int64 [vocab_size], how often each id occurs in the training tokens.
        train, valid: the two splits.
    """

    folder: Path
    manifest: dict[str, Any]
    fingerprint: str
    tokenizer_dir: Path
    vocab_size: int
    special: SpecialTokens
    unigram_counts: np.ndarray
    train: Split
    valid: Split


def open_prepared(folder: str | Path) -> Prepared:
    """Open what `prepare` returned; raises UserError where the folder is not whole."""
    import numpy as np

    folder = Path(folder)
    problem = damage(folder)
    if problem:
        raise UserError(f"{folder} is not a whole prepared corpus ({problem}); delete the folder and prepare again")
    manifest = _read_manifest(folder)

    def split(name: str) -> Split:
        def mapped(part: str, dtype: str) -> np.ndarray:
            return np.memmap(folder / f"{name}.{part}", dtype=dtype, mode="r")

        return Split(mapped("tokens", manifest["token_dtype"]), mapped("sentence_starts", "<i8"), mapped("document_starts", "<i8"))

    return Prepared(
        folder=folder,
        manifest=manifest,
        fingerprint=_fingerprint(manifest),
        tokenizer_dir=folder / TOKENIZER_FOLDER,
        vocab_size=manifest["vocab_size"],
        special=SpecialTokens(**manifest["special_tokens"]),
        unigram_counts=np.load(folder / "unigram.npy"),
        train=split("train"),
        valid=split("valid"),
    )


def damage(folder: Path) -> str | None:
    """What is wrong with a prepared folder at a glance (manifest, format, file sizes), or None."""
    try:
        manifest = _read_manifest(folder)
    except (OSError, ValueError):
        return f"no readable {MANIFEST}"
    if manifest.get("format_version") != FORMAT_VERSION:
        return f"format version {manifest.get('format_version')}, this release reads {FORMAT_VERSION}"
    for name, file in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            return f"{name} is missing or cut short"
    return None


def unigram_log_probs(prepared: Prepared) -> np.ndarray:
    """Natural logarithm of each token's frequency in the training text, with one added to every count; float64 [vocab_size]."""
    import numpy as np

    counts = prepared.unigram_counts + 1.0
    return np.log(counts) - np.log(counts.sum())


def _read_manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def _fingerprint(manifest: dict[str, Any]) -> str:
    """Over the content of all files, so that equal data made twice compare equal."""
    content = {name: file["sha256"] for name, file in manifest["files"].items()}
    return hashlib.sha256(json.dumps([manifest["format_version"], content], sort_keys=True).encode()).hexdigest()
