from collections import Counter

import pytest

from pretrain.data.splitting import split_by_hash
from pretrain.errors import UserError

DOCUMENTS = [[f"Document {number}.", "It has two lines."] for number in range(2000)]


def test_the_share_held_out_is_the_fraction_and_follows_the_text_alone():
    first = {document[0]: split for split, document in split_by_hash(DOCUMENTS, 0.1)}
    assert 150 < Counter(first.values())["valid"] < 250
    backwards = {document[0]: split for split, document in split_by_hash(DOCUMENTS[::-1], 0.1)}
    assert first == backwards


def test_no_document_is_lost_or_repeated():
    assert sorted(document for _, document in split_by_hash(DOCUMENTS, 0.02)) == sorted(DOCUMENTS)


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("num_documents", [2, 3, 5])
def test_neither_split_is_empty(num_documents, fraction):
    documents = DOCUMENTS[:num_documents]
    given = list(split_by_hash(documents, fraction))
    assert {split for split, _ in given} == {"train", "valid"}
    assert sorted(document for _, document in given) == sorted(documents)
    assert {document[0]: split for split, document in given} == {
        document[0]: split for split, document in split_by_hash(documents[::-1], fraction)
    }


def test_the_only_document_loses_its_tail():
    lines = [f"Line {number}." for number in range(50)]
    assert list(split_by_hash([lines], 0.1)) == [("train", lines[:45]), ("valid", lines[45:])]
    assert list(split_by_hash([["one two three"]], 0.02)) == [("train", ["one two"]), ("valid", ["three"])]


def test_a_single_word_is_no_corpus():
    with pytest.raises(UserError, match="single word"):
        list(split_by_hash([["word"]], 0.02))
