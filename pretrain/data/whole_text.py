"""All of a text as the validation split of a corpus, tokenized as a preparation does it, held in memory: for evaluating a model on it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pretrain.config.schema import DataConfig
from pretrain.data.corpus import Source, open_sources
from pretrain.data.prepared import Prepared, PreparedSource, Split
from pretrain.data.progress import Progress
from pretrain.data.segments import Recipe, segments_of, tokenize_unit
from pretrain.data.token_files import token_dtype
from pretrain.data.tokenizer import special_tokens
from pretrain.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def whole_text(data: DataConfig, tokenizer: Tokenizer) -> Prepared:
    """Every document of every source that `data` names, cut into sentences; there is no training text.

    Raises UserError where a path leads nowhere, or a source holds no text.
    """
    from tokenizers import Tokenizer

    sources = open_sources(data, progress=True)
    uncut = Tokenizer.from_str(tokenizer.to_str())
    uncut.no_truncation()
    uncut.no_padding()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "tokenizer.json"
        uncut.save(str(file))
        recipe = Recipe(file, True, None, data.min_document_characters)
        return Prepared(
            folder=Path(scratch),
            manifest={},
            fingerprint="",
            tokenizer_dir=Path(scratch),
            vocab_size=tokenizer.get_vocab_size(),
            special=special_tokens(tokenizer),
            sources=tuple(_whole(source, recipe, tokenizer.get_vocab_size(), Path(scratch)) for source in sources),
        )


def _whole(source: Source, recipe: Recipe, vocab_size: int, scratch: Path) -> PreparedSource:
    parts = [part for text in source.texts() for part in text.parts()]
    stem = scratch / source.name
    with Progress("tokenizing", sum(part.size_bytes for part in parts)) as bar:
        tokenize_unit(parts, stem, recipe, bar.advance)
    segments = list(segments_of(stem))
    if not segments:
        raise UserError(f"{source.train.key} holds no text ({len(parts)} files); give files with text in them")
    split = Split(
        tokens=np.concatenate([segment.tokens for segment in segments]),
        sentence_starts=_starts([segment.sentence_lengths for segment in segments]),
        document_starts=_starts([segment.document_lengths for segment in segments]),
    )
    nothing = Split(np.empty(0, token_dtype(vocab_size)), np.zeros(1, np.int64), np.zeros(1, np.int64))
    return PreparedSource(source.name, source.weight, nothing, split, np.zeros(vocab_size, np.int64))


def _starts(lengths: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.int64)])
