"""Small text, small configurations, and prepared corpora in which every token tells where it came from."""

import json
import random
from pathlib import Path

import numpy as np

from pretrain.config.schema import BertConfig, Config, DataConfig, Gpt2Config, TextDataConfig, TokenizerConfig
from pretrain.data.prepared import Prepared, PreparedSource, Split
from pretrain.data.tokenizer import SpecialTokens

WORDS = (
    "river stone window garden letter morning evening quiet bright heavy narrow under across between travel gather listen answer "
    "carry follow remember children village market harbour winter summer corner kitchen candle silver copper paper travelled listened"
).split()


def english(num_documents: int, seed: int = 0, sentences: tuple[int, int] = (1, 12)) -> str:
    """Documents of one sentence per line, blank lines between."""
    random_source = random.Random(seed)

    def sentence() -> str:
        return " ".join(random_source.choices(WORDS, k=random_source.randint(3, 14))).capitalize() + "."

    return "\n\n".join("\n".join(sentence() for _ in range(random_source.randint(*sentences))) for _ in range(num_documents)) + "\n"


def make_config(family: str, data: DataConfig, **tokenizer: object) -> Config:
    model = {"bert": BertConfig, "gpt2": Gpt2Config}[family](name="tiny", num_layers=1, hidden_size=8, num_heads=1)
    return Config(model=model, data=data, tokenizer=TokenizerConfig(**tokenizer))


def synthetic(documents: list[list[int]], valid: list[list[int]] | None = None) -> Prepared:
    """A prepared corpus that was never text: `documents` holds sentence lengths; token number i of a split has the id 10 + i."""

    def split(lengths: list[list[int]]) -> Split:
        flat = [length for document in lengths for length in document]
        return Split(
            tokens=np.arange(10, 10 + sum(flat), dtype=np.uint32),
            sentence_starts=np.concatenate([[0], np.cumsum(flat)]).astype(np.int64),
            document_starts=np.concatenate([[0], np.cumsum([len(document) for document in lengths])]).astype(np.int64),
        )

    train = split(documents)
    return Prepared(
        folder=Path("nowhere"),
        manifest={},
        fingerprint="",
        tokenizer_dir=Path("nowhere"),
        vocab_size=10 + len(train.tokens),
        special=SpecialTokens(pad=0, unk=1, cls=2, sep=3, mask=4),
        sources=(
            PreparedSource(
                name="synthetic",
                weight=1.0,
                train=train,
                valid=split(valid if valid is not None else documents),
                unigram_counts=np.ones(10 + len(train.tokens), dtype=np.int64),
            ),
        ),
    )


def random_documents(num_documents: int, seed: int, longest_sentence: int = 40) -> list[list[int]]:
    random_source = random.Random(seed)
    return [[random_source.randint(1, longest_sentence) for _ in range(random_source.randint(1, 15))] for _ in range(num_documents)]


def text_config(tmp_path, family="bert", text=None, **data):
    path = tmp_path / "corpus.txt"
    if text is not None or not path.exists():
        path.write_text(english(30) if text is None else text, encoding="utf-8")
    vocab_size = data.pop("vocab_size", {"bert": 150, "gpt2": 300}[family])
    settings = {"paths": [str(path)], "cache_dir": str(tmp_path / "cache"), "validation_fraction": 0.2} | data
    return make_config(family, TextDataConfig(**settings), vocab_size=vocab_size)


def entries(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".lock"))


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())
