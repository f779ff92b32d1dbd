"""Prepared folders: damaged, moved, named by the user."""

import json
import os

import pytest

from pretrain.config.schema import PreparedDataConfig
from pretrain.data.prepare import prepare
from pretrain.data.prepared import open_prepared
from pretrain.errors import UserError
from tests.unit.data.corpora import english, make_config, manifest_of, text_config


def test_a_damaged_folder_is_made_again(tmp_path):
    folder = prepare(text_config(tmp_path), progress=False)
    fingerprint = open_prepared(folder).fingerprint
    os.truncate(folder / "text" / "train.tokens", 10)
    with pytest.raises(UserError, match="text/train.tokens is missing or cut short"):
        open_prepared(folder)
    assert prepare(text_config(tmp_path), progress=False) == folder
    assert open_prepared(folder).fingerprint == fingerprint


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["text/train.tokens", "text/valid.document_starts", "text/unigram.npy", "tokenizer/tokenizer.json"])
def test_a_flipped_bit_is_found_by_checksum_and_the_file_named(tmp_path, capsys, name):
    made = prepare(text_config(tmp_path), progress=False)
    fingerprint = open_prepared(made).fingerprint
    moved = made.rename(tmp_path / "moved")
    flip_a_bit(moved / name)
    given = make_config("bert", PreparedDataConfig(path=str(moved)))
    with pytest.raises(UserError, match=rf"moved is not a whole prepared corpus \({name} does not match its checksum\); delete the folder"):
        prepare(given, progress=False)
    moved.rename(made)
    assert open_prepared(prepare(text_config(tmp_path))).fingerprint == fingerprint
    assert f"{made} is not whole ({name} does not match its checksum); preparing it again" in capsys.readouterr().err


def test_a_prepared_folder_is_used_wherever_it_lies_without_the_corpus(tmp_path):
    made = prepare(text_config(tmp_path), progress=False)
    fingerprint = open_prepared(made).fingerprint
    moved = made.rename(tmp_path / "moved")
    (tmp_path / "corpus.txt").unlink()
    given = make_config("bert", PreparedDataConfig(path=str(moved)))
    assert prepare(given, progress=False) == moved and open_prepared(moved).fingerprint == fingerprint
    with pytest.raises(UserError, match="was prepared with a wordpiece tokenizer; model.family=gpt2 needs bpe"):
        prepare(make_config("gpt2", PreparedDataConfig(path=str(moved))), progress=False)
    with pytest.raises(UserError, match="data.path=.*nowhere is not a folder"):
        prepare(make_config("bert", PreparedDataConfig(path=str(tmp_path / "nowhere"))), progress=False)


def test_an_output_folder_is_made_once_and_never_overwritten(tmp_path):
    output = tmp_path / "mine"
    assert (
        prepare(text_config(tmp_path), output=output, progress=False)
        == output
        == prepare(text_config(tmp_path), output=output, progress=False)
    )
    with pytest.raises(UserError, match="mine was prepared from another corpus or with other settings; give another folder"):
        prepare(text_config(tmp_path, vocab_size=151), output=output, progress=False)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("Dear")
    with pytest.raises(UserError, match="letters is not a whole prepared corpus .no readable manifest.json.; delete the folder"):
        prepare(text_config(tmp_path), output=tmp_path / "letters", progress=False)
    assert (tmp_path / "letters" / "a.txt").read_text() == "Dear"


def test_a_folder_of_the_user_s_is_left_alone(tmp_path):
    for name in ("proj", "us.part"):
        (tmp_path / name / "tokenizer").mkdir(parents=True)
        (tmp_path / name / "thesis.tex").write_text("Dear reader")
    with pytest.raises(UserError, match="proj is not a whole prepared corpus"):
        prepare(text_config(tmp_path), output=tmp_path / "proj", progress=False)
    with pytest.raises(UserError, match="us.part is needed for the preparation and is not one of its own; move it away"):
        prepare(text_config(tmp_path), output=tmp_path / "us", progress=False)
    assert all((tmp_path / name / "thesis.tex").read_text() == "Dear reader" for name in ("proj", "us.part"))
    (tmp_path / "empty").mkdir()
    assert prepare(text_config(tmp_path), output=tmp_path / "empty", progress=False) == tmp_path / "empty"


def test_a_folder_inside_the_corpus_is_refused(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text(english(30))
    inside = text_config(tmp_path, paths=[str(tmp_path / "texts")])
    with pytest.raises(UserError, match="out lies inside .*texts, from which text is read; give another folder"):
        prepare(inside, output=tmp_path / "texts" / "out", progress=False)


@pytest.mark.parametrize("change", [{"token_dtype": "<u4"}, {"files": {}}, {"sources": None}, {"settings": []}])
def test_a_manifest_that_was_changed_is_found(tmp_path, change):
    made = prepare(text_config(tmp_path), progress=False).rename(tmp_path / "moved")
    manifest = manifest_of(made)
    (made / "manifest.json").write_text(json.dumps(manifest | change))
    for text in ("null", "[]", "{}", json.dumps(manifest | change)):
        (made / "manifest.json").write_text(text)
        with pytest.raises(UserError, match="moved is not a whole prepared corpus"):
            prepare(make_config("bert", PreparedDataConfig(path=str(made))), progress=False)
