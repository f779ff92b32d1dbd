"""Looking words up gives the library's own ids, whatever the text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.config.schema import TokenizerConfig
from pretrain.data import memo
from pretrain.data.memo import WordMemo
from pretrain.data.tokenizer import build_tokenizer
from tests.unit.data.corpora import english

PROSE = [
    *english(40).split("\n\n"),
    "Don't; it's   the   river's\u00a0 end.\n\n  So \tsay \x1c they: we'll…",
    "Ça é\u0301té 東京 [MASK] <|endoftext|> 12,345.6 ",
]
TOKENIZERS = {
    kind: build_tokenizer(TokenizerConfig(vocab_size=size), kind, lambda: iter(PROSE)) for kind, size in (("wordpiece", 200), ("bpe", 400))
}
for tokenizer in TOKENIZERS.values():
    tokenizer.encode_special_tokens = True
MEMOS = {kind: WordMemo(tokenizer) for kind, tokenizer in TOKENIZERS.items()}
PIECES = st.sampled_from(
    [
        "river",
        "s",
        "'s",
        "'",
        " ",
        "  ",
        "\n",
        "\t",
        "\u00a0",
        "\u2003",
        "\x1c",
        "\x85",
        "é",
        "e\u0301",
        "東",
        "1",
        ".",
        "##",
        "İ",
        "ß",
        "\u200b",
        "\ufffd",
    ]
)


def check(kind, texts):
    ids, lengths = MEMOS[kind].encode(texts)
    wanted = [encoding.ids for encoding in TOKENIZERS[kind].encode_batch_fast(texts, add_special_tokens=False)]
    assert [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])] == wanted


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_prose(kind):
    check(kind, PROSE)
    check(kind, PROSE[::-1])


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=400, deadline=None)
@given(texts=st.lists(st.one_of(st.text(), st.lists(PIECES, max_size=20).map("".join)), min_size=1, max_size=5))
def test_any_text(kind, texts):
    check(kind, [text for text in texts if _is_unicode(text)] or [""])


def _is_unicode(text):
    return not any("\ud800" <= character <= "\udfff" for character in text)


def test_the_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(memo, "MOST_WORDS", 20)
    small = WordMemo(TOKENIZERS["bpe"])
    for text in PROSE:
        ids, _ = small.encode([text])
        assert ids.tolist() == TOKENIZERS["bpe"].encode(text, add_special_tokens=False).ids
        assert len(small._number) == len(small._lengths) <= 20


def test_a_tokenizer_of_another_make_is_given_whole_texts():
    from tokenizers import Tokenizer

    other = Tokenizer.from_str(TOKENIZERS["wordpiece"].to_str())
    other.add_tokens(["the river"])
    ids, _ = WordMemo(other).encode(["see the river here"])
    assert ids.tolist() == other.encode("see the river here", add_special_tokens=False).ids
    assert other.token_to_id("the river") in ids
