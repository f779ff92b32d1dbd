"""Vocabulary files as BERT and GPT-2 were published with: found, read and checked."""

import hashlib
import json
import os.path
from pathlib import Path

from pretrain.errors import UserError

_BPE_NAMES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
_WANTED = {
    "wordpiece": "a vocab.txt",
    "bpe": "a folder with vocab.json and merges.txt (or encoder.json and vocab.bpe), or the .json with the merges beside it",
}


def find(path: Path, kind: str) -> tuple[Path, ...]:
    """The files behind `tokenizer.path`: (vocab.txt,) for wordpiece, (vocab.json, merges) for bpe; raises UserError."""
    if not os.path.exists(path):
        raise UserError(f"tokenizer.path={path} does not exist; give {_WANTED[kind]}")
    files = _find_wordpiece(path) if kind == "wordpiece" else _find_bpe(path)
    if files is None:
        raise UserError(f"tokenizer.path={path} is not a {kind} vocabulary; give {_WANTED[kind]}")
    return files


def content_hashes(files: tuple[Path, ...]) -> list[str]:
    """Hexadecimal SHA-256 of each file; raises UserError for one that cannot be read."""
    try:
        return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    except OSError as error:
        raise UserError(f"tokenizer.path: {error.filename} cannot be read ({error.strerror}); mend its permissions") from error


def read_wordpiece(path: Path) -> dict[str, int]:
    """One token per line, its id the line's number from 0. Raises ValueError for blank or repeated lines."""
    vocab: dict[str, int] = {}
    text = path.read_text(encoding="utf-8")
    for index, line in enumerate(text.removesuffix("\n").split("\n")):
        token = line.removesuffix("\r")
        if not token:
            raise ValueError(f"line {index + 1} is blank")
        if token in vocab:
            raise ValueError(f"line {index + 1} repeats {token!r}")
        vocab[token] = index
    return vocab


def read_bpe(vocab_path: Path, merges_path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Token to id, and the merges in order of priority. Raises ValueError for what is not in that form."""
    vocab = json.loads(vocab_path.read_text(encoding="utf-8"))
    if not isinstance(vocab, dict) or sorted(map(str, vocab.values())) != sorted(map(str, range(len(vocab)))):
        raise ValueError(f"{vocab_path.name} does not map tokens to the ids 0, 1, 2, ...")
    merges = []
    for number, line in enumerate(merges_path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        pair = line.rstrip("\r").split(" ")
        if len(pair) != 2:
            raise ValueError(f"line {number} of {merges_path.name} is not two tokens with one space between")
        merges.append((pair[0], pair[1]))
    return vocab, merges


def _find_wordpiece(path: Path) -> tuple[Path] | None:
    file = path / "vocab.txt" if path.is_dir() else path
    return (file,) if file.is_file() and file.suffix == ".txt" and file.name != "merges.txt" else None


def _find_bpe(path: Path) -> tuple[Path, Path] | None:
    """Names may carry a prefix, as in gpt2-encoder.json beside gpt2-vocab.bpe."""
    for vocab_name, merges_name in _BPE_NAMES:
        vocab = path / vocab_name if path.is_dir() else path
        merges = vocab.with_name(vocab.name.replace(vocab_name, merges_name))
        if vocab.name.endswith(vocab_name) and vocab.is_file() and merges.is_file():
            return vocab, merges
    return None
