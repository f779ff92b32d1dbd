"""The files behind `tokenizer.path`: as BERT and GPT-2 were published with, in Hugging Face format, or on the hub."""

import hashlib
import json
import os.path
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain.config.schema import TokenizerConfig
from pretrain.errors import UserError
from pretrain.hub_files import NotOnTheHub, download, names_the_hub
from pretrain.user_path import user_path

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PUBLISHED_VOCAB_SIZE = {"wordpiece": 30_522, "bpe": 50_257}

_FAST = "tokenizer.json"
_CONFIG = "tokenizer_config.json"
FILES = (_FAST, _CONFIG, "vocab.txt", "vocab.json", "merges.txt")
"""What a tokenizer is read from on the hub."""

_BPE_NAMES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
_WANTED = {
    "wordpiece": "a folder in Hugging Face format, a vocab.txt, or a name on the hub such as bert-large-uncased",
    "bpe": "a folder in Hugging Face format, one with vocab.json and merges.txt (or encoder.json and vocab.bpe), the .json with the merges "
    "beside it, or a name on the hub such as gpt2",
}


@dataclass(frozen=True)
class TokenizerFiles:
    """What a given tokenizer is read from."""

    read_whole: tuple[Path, ...]
    """tokenizer.json, which says everything, and the tokenizer_config.json beside it, if there is one."""
    vocabulary: tuple[Path, ...] = ()
    """Else: (vocab.txt,) for wordpiece, (vocab.json, merges) for bpe."""
    lowercase: bool | None = None
    """What a tokenizer_config.json beside the vocabulary says."""


def find(path: str, kind: str) -> TokenizerFiles:
    """The files behind `tokenizer.path`, downloaded from the hub where it names a repository there. Raises UserError."""
    local = user_path(path, "tokenizer.path=")
    if not os.path.exists(local):
        local = _downloaded(path, kind)
    fast = local / _FAST if local.is_dir() else local
    if fast.name == _FAST and fast.is_file():
        beside = fast.with_name(_CONFIG)
        return TokenizerFiles((fast, beside) if beside.is_file() else (fast,))
    vocabulary = _find_wordpiece(local) if kind == "wordpiece" else _find_bpe(local)
    if vocabulary is None:
        raise UserError(f"tokenizer.path={path} is not a {kind} vocabulary; give {_WANTED[kind]}")
    return TokenizerFiles((), vocabulary, _lowercase_beside(vocabulary[0]))


def identity(config: TokenizerConfig, kind: str) -> dict[str, Any]:
    """What a tokenizer follows from, besides the text where it is trained: JSON values. Raises UserError for files that cannot be read."""
    if config.path is None:
        found: dict[str, Any] = {"vocab_size": config.vocab_size or PUBLISHED_VOCAB_SIZE[kind], "megabytes": config.training_megabytes}
    else:
        files = find(config.path, kind)
        found = {"vocab_size": config.vocab_size, "files": _content_hashes([*files.read_whole, *files.vocabulary])}
        if files.read_whole:
            return found
    return found | ({"lowercase": lowercase(config, files.lowercase if config.path else None)} if kind == "wordpiece" else {})


def lowercase(config: TokenizerConfig, beside: bool | None) -> bool:
    """What the configuration says, else what stands beside the vocabulary, else as the uncased models."""
    return next((said for said in (config.lowercase, beside) if said is not None), True)


def vocabulary_hash(tokenizer: "Tokenizer") -> str:
    """Hexadecimal SHA-256 over the tokens in the order of their ids."""
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return hashlib.sha256("\n".join(token for token, _ in by_id).encode()).hexdigest()


def _downloaded(name: str, kind: str) -> Path:
    if not names_the_hub(name):
        raise UserError(f"tokenizer.path={name} does not exist; give {_WANTED[kind]}")
    try:
        return download(name, FILES)
    except NotOnTheHub as error:
        raise UserError(
            f"tokenizer.path={name} is no file or folder here and cannot be had from the hub ({error}); give {_WANTED[kind]}"
        ) from error


def _lowercase_beside(vocabulary: Path) -> bool | None:
    try:
        return json.loads((vocabulary.parent / _CONFIG).read_text(encoding="utf-8")).get("do_lower_case")
    except (OSError, ValueError, AttributeError):
        return None


def _content_hashes(files) -> list[str]:
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
