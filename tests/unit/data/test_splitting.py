import hashlib

import numpy as np
import pytest

from pretrain.data import splitting
from pretrain.data.splitting import copies, held_out


def digests(texts):
    return np.frombuffer(b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts), dtype=np.uint8).reshape(
        -1, 16
    )


DOCUMENTS = [f"Document {number}." for number in range(2000)]


def chosen(texts, fraction, pieces=3):
    valid = held_out(iter(np.array_split(digests(texts), pieces)), len(texts), fraction)
    assert valid.shape == (len(texts),) and valid.dtype == bool
    return {text for text, is_valid in zip(texts, valid) if is_valid}


def test_the_share_held_out_is_the_fraction_and_follows_the_text_alone():
    first = chosen(DOCUMENTS, 0.1)
    assert 150 < len(first) < 250
    assert first == chosen(DOCUMENTS[::-1], 0.1, pieces=17)


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("num_documents", [2, 3, 5])
def test_neither_split_is_empty(num_documents, fraction):
    valid = chosen(DOCUMENTS[:num_documents], fraction)
    assert 0 < len(valid) < num_documents
    assert valid == chosen(DOCUMENTS[:num_documents][::-1], fraction)


@pytest.mark.parametrize("at_once", [1 << 22, 7])
def test_copies_are_all_but_the_first(monkeypatch, at_once):
    monkeypatch.setattr(splitting, "_DOCUMENTS_AT_ONCE", at_once)
    texts = [f"Document {number % 40}." for number in np.random.default_rng(0).permutation(100)]
    found = copies(lambda: iter(np.array_split(digests(texts), 4)), len(texts))
    assert found.tolist() == [text in texts[:index] for index, text in enumerate(texts)]
    assert found.sum() == 60


def test_no_documents_have_no_copies():
    assert copies(lambda: iter([]), 0).tolist() == []
