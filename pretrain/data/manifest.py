"""What a prepared folder says of itself: where its text came from, what became of it, which files there are and their hashes."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain.data import tokenizer_files
from pretrain.data.tokenizer import load_tokenizer, special_tokens

if TYPE_CHECKING:
    from pretrain.data.assemble import AssembledSource
    from pretrain.data.corpus import Source
    from pretrain.data.reading import ReadLog

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
TOKENIZER_FOLDER = "tokenizer"

_MOST_TROUBLES = 10


def make_manifest(
    folder: Path, settings: dict[str, Any], sources: Sequence[Source], assembled: Sequence[AssembledSource], checksums: dict[str, str]
) -> dict[str, Any]:
    """The manifest of `folder`: JSON values. `checksums` holds the SHA-256 of every file by its name in the folder."""
    tokenizer = load_tokenizer(folder / TOKENIZER_FOLDER)
    return {
        "format_version": FORMAT_VERSION,
        "settings": settings,
        "sources": {
            source.name: {
                "weight": given.weight,
                "counts": {split: writer.counts for split, writer in source.writers.items()},
                "reading": _totals(source.logs),
                "troubles": _troubles(source.logs),
            }
            for source, given in zip(assembled, sources, strict=True)
        },
        "tokenizer_hash": checksums[f"{TOKENIZER_FOLDER}/tokenizer.json"],
        "vocabulary_hash": tokenizer_files.vocabulary_hash(tokenizer),
        "vocab_size": tokenizer.get_vocab_size(),
        "special_tokens": asdict(special_tokens(tokenizer)),
        "token_dtype": assembled[0].token_dtype,
        "files": {name: {"bytes": (folder / name).stat().st_size, "sha256": digest} for name, digest in sorted(checksums.items())},
        "versions": _versions(),
    }


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest with a checksum of its own."""
    text = json.dumps({**manifest, "checksum": checksum_of(manifest)}, indent=2)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def checksum_of(manifest: dict[str, Any]) -> str:
    """Hexadecimal SHA-256 of a manifest's content, without the checksum itself."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def describe(manifest: dict[str, Any]) -> Iterator[str]:
    """What was read and what became of it, in lines for the user; the numbers add up."""
    for name, source in manifest["sources"].items():
        reading, counts = source["reading"], source["counts"]
        left_out = [
            f"{reading[key]:,} {words}"
            for key, words in (("too_short", "too short"), ("duplicates", "copies of others"), ("without_tokens", "without a token"))
            if reading[key]
        ]
        yield (
            f"{name}: {reading['documents']:,} documents from {reading['files']:,} files: "
            + ", ".join(
                [f"{counts[split]['documents']:,} for {words}" for split, words in (("train", "training"), ("valid", "validation"))]
            )
            + "".join(f", {part}" for part in left_out)
            + f"; {counts['train']['tokens']:,} training tokens"
        )
        troubles = source["troubles"]
        for file, trouble in list(troubles.items())[:_MOST_TROUBLES]:
            yield f"  {file}: {_trouble(trouble)}"
        if len(troubles) > _MOST_TROUBLES:
            yield f"  and {len(troubles) - _MOST_TROUBLES:,} files more, all in {MANIFEST}"


def _trouble(trouble: dict[str, Any]) -> str:
    said = []
    if why := trouble.get("cut_short"):
        said.append(f"cut short ({why}); the {trouble['documents']:,} documents before that are used")
    if number := trouble.get("bad_unicode"):
        said.append(f"{number:,} lines with bytes that are not UTF-8; they became U+FFFD")
    if number := trouble.get("bad_records"):
        said.append(f"{number:,} records without text")
    return "; ".join(said) or "holds no text"


_READING = ("documents", "too_short", "without_tokens", "duplicates", "bad_unicode", "bad_records")


def _totals(logs: Sequence[ReadLog]) -> dict[str, int]:
    return {"files": len({log.name for log in logs})} | {name: sum(getattr(log, name) for log in logs) for name in _READING}


def _troubles(logs: Sequence[ReadLog]) -> dict[str, dict[str, Any]]:
    """The files with something to tell: empty, cut short, or not all of it text."""
    found: dict[str, dict[str, Any]] = {}
    documents: dict[str, int] = {}
    for log in logs:
        documents[log.name] = documents.get(log.name, 0) + log.documents
        for name in ("bad_unicode", "bad_records", "cut_short"):
            if value := getattr(log, name):
                mine = found.setdefault(log.name, {})
                mine[name] = value + mine.get(name, type(value)())
    for name, number in documents.items():
        if name in found or (number == 0 and not name.endswith(".py")):  # most modules of the standard library hold no prose
            found.setdefault(name, {})["documents"] = number
    return found


def _versions() -> dict[str, str]:
    import numpy
    import tokenizers

    from pretrain import __version__

    return {
        "pretrain": __version__,
        "python": sys.version.split()[0],
        "numpy": numpy.__version__,
        "tokenizers": tokenizers.__version__,
    }
