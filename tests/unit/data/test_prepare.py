import bz2
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pretrain.config.schema import HubDataConfig, MixtureDataConfig, StdlibDataConfig
from pretrain.data import preparation, segments, token_files
from pretrain.data import prepare as prepare_module
from pretrain.data.manifest import describe
from pretrain.data.prepare import prepare
from pretrain.data.prepared import open_prepared
from pretrain.data.tokenizer import load_tokenizer
from pretrain.errors import UserError
from pretrain.validation import unigram_log_probs
from tests.unit.data.corpora import english, entries, make_config, manifest_of, text_config


def test_bert_sentences_come_back_from_the_files(tmp_path):
    prepared = open_prepared(prepare(text_config(tmp_path), progress=False))
    tokenizer = load_tokenizer(prepared.tokenizer_dir)
    found = []
    for split in (prepared.sources[0].train, prepared.sources[0].valid):
        bounds = split.document_starts
        assert split.sentence_starts[-1] == len(split.tokens) and bounds[-1] == len(split.sentence_starts) - 1
        for first, end in zip(bounds[:-1], bounds[1:]):
            spans = [split.tokens[split.sentence_starts[i] : split.sentence_starts[i + 1]] for i in range(first, end)]
            found.append([tokenizer.decode(span.tolist()) for span in spans])
    wanted = [[line.lower().replace(".", " .") for line in document.split("\n")] for document in english(30).strip().split("\n\n")]
    assert sorted([[line.replace(" .", ".") for line in document] for document in found]) == sorted(
        [[line.replace(" .", ".") for line in document] for document in wanted]
    )


def test_gpt2_text_comes_back_byte_for_byte(tmp_path):
    text = "  One line, \tand\nanother.  \n\nÜber <|endoftext|> 東京\n\n" + english(5).strip()
    prepared = open_prepared(prepare(text_config(tmp_path, "gpt2", text), progress=False))
    tokenizer = load_tokenizer(prepared.tokenizer_dir)
    found = []
    for split in (prepared.sources[0].train, prepared.sources[0].valid):
        for start, end in zip(split.sentence_starts[:-1], split.sentence_starts[1:]):
            ids = split.tokens[start:end].tolist()
            assert ids.pop() == prepared.special.eot and prepared.special.eot not in ids
            found.append(tokenizer.decode(ids))
    assert sorted(found) == sorted(text.split("\n\n"))


def test_manifest_and_unigram_counts_agree_with_the_files(tmp_path):
    prepared = open_prepared(prepare(text_config(tmp_path), progress=False))
    (source,) = prepared.sources
    for name, split in (("train", source.train), ("valid", source.valid)):
        counts = prepared.manifest["sources"]["text"]["counts"][name]
        assert counts["tokens"] == len(split.tokens) and counts["sentences"] == len(split.sentence_starts) - 1
        assert counts["documents"] == len(split.document_starts) - 1 > 0
        assert split.tokens.dtype == np.uint16
    assert np.array_equal(source.unigram_counts, np.bincount(source.train.tokens, minlength=prepared.vocab_size))
    log_probs = unigram_log_probs(prepared, np.ones(1))
    assert log_probs.dtype == np.float64 and np.exp(log_probs).sum() == pytest.approx(1)
    assert np.argmax(log_probs) == np.argmax(source.unigram_counts)


def test_large_vocabularies_take_four_bytes():
    assert [token_files.token_dtype(size).itemsize for size in (1 << 16, (1 << 16) + 1)] == [2, 4]


@pytest.mark.parametrize("segment_characters", [1 << 24, 500])
def test_many_small_batches_and_segments_give_the_same_files(tmp_path, monkeypatch, segment_characters):
    first = open_prepared(prepare(text_config(tmp_path), progress=False))
    monkeypatch.setattr(segments, "BATCH_CHARACTERS", 100)
    monkeypatch.setattr(segments, "SEGMENT_CHARACTERS", segment_characters)
    second = open_prepared(prepare(text_config(tmp_path, cache_dir=str(tmp_path / "cache2")), progress=False))
    assert first.fingerprint == second.fingerprint


def test_the_second_time_it_is_only_looked_up(tmp_path, monkeypatch):
    folder = prepare(text_config(tmp_path), progress=False)
    monkeypatch.setattr(prepare_module, "Preparation", None)
    start = time.monotonic()
    assert prepare(text_config(tmp_path), progress=False) == folder
    assert time.monotonic() - start < 1
    longer = text_config(tmp_path)
    longer.data.max_seq_length = 512
    assert prepare(longer, progress=False) == folder


def test_what_changes_the_result_changes_the_key(tmp_path):
    def folder(**settings):
        return prepare(text_config(tmp_path, **settings), progress=False)

    folders = [folder(), folder(vocab_size=151), folder(validation_fraction=0.3), folder(family="gpt2")]
    uncased = text_config(tmp_path)
    uncased.tokenizer.lowercase = False
    folders.append(prepare(uncased, progress=False))
    folders.append(folder(text=english(31)))
    assert len(set(folders)) == len(folders)


def test_given_validation_text_is_used_whole_and_alone(tmp_path):
    (tmp_path / "valid.txt").write_text("The river window.\nThe garden stone.\n")
    prepared = open_prepared(prepare(text_config(tmp_path, valid_paths=[str(tmp_path / "valid.txt")]), progress=False))
    assert prepared.manifest["sources"]["text"]["counts"]["valid"]["sentences"] == 2
    assert prepared.manifest["sources"]["text"]["counts"]["train"]["documents"] == 30


def test_a_corpus_of_one_document_has_a_validation_tail(tmp_path):
    prepared = open_prepared(prepare(text_config(tmp_path, text=english(1, sentences=(40, 40))), progress=False))
    assert [prepared.manifest["sources"]["text"]["counts"][split]["sentences"] for split in ("train", "valid")] == [32, 8]


@pytest.mark.parametrize("text", ["", "\n \n\n", "\ufeff"])
def test_an_empty_corpus_is_refused_and_leaves_nothing(tmp_path, text):
    with pytest.raises(UserError, match="data.paths holds no text .*; give files with text"):
        prepare(text_config(tmp_path, text=text), progress=False)
    assert entries(tmp_path) == []


def test_empty_validation_text_is_refused(tmp_path):
    (tmp_path / "valid.txt").write_text("\n")
    with pytest.raises(UserError, match="data.valid_paths holds no text"):
        prepare(text_config(tmp_path, valid_paths=[str(tmp_path / "valid.txt")]), progress=False)
    assert entries(tmp_path) == []


def test_a_file_that_is_mostly_not_text_leaves_nothing(tmp_path):
    (tmp_path / "corpus.txt").write_bytes(b"caf\xe9\n" * 10 + b"plain\n")
    with pytest.raises(UserError, match="is not UTF-8 text: 10 of 11 lines"):
        prepare(text_config(tmp_path), progress=False)
    assert entries(tmp_path) == []


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data.cache_dir=.*file/cache cannot be written \(.*\); give a folder that can"):
        prepare(text_config(tmp_path, cache_dir=str(tmp_path / "file" / "cache")), progress=False)


def test_an_output_beside_which_no_lock_can_lie(tmp_path):
    """It was waited for, for ever."""
    (tmp_path / "a.txt").write_text("A sentence of the corpus.\n")
    with pytest.raises(UserError, match=r"--output /proc/prepared cannot be written \(.*\); give a folder that can"):
        prepare(text_config(tmp_path, paths=[str(tmp_path / "a.txt")]), output=Path("/proc/prepared"), progress=False)


def test_missing_text_is_found_before_the_cache_is_touched(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        prepare(text_config(tmp_path, paths=[str(tmp_path / "missing.txt")]), progress=False)
    assert not (tmp_path / "cache").exists()


def test_what_is_left_out_is_counted_and_the_counts_add_up(tmp_path):
    """Ten shards, of which one is cut short, one holds bytes that are not Unicode, and one is empty."""
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(10):
        text = english(20, seed=number) + "\nTiny.\n\n" + english(2, seed=99) + "\n\u200b\n"
        (shards / f"{number}.txt").write_text(text, encoding="utf-8")
    long = "\n\n".join(f"Document {number}. {os.urandom(500).hex()}" for number in range(2000))
    packed = bz2.compress(long.encode())
    (shards / "3.txt").unlink()
    (shards / "3.txt.bz2").write_bytes(packed[: len(packed) * 2 // 3])
    (shards / "5.txt").write_bytes(english(20, seed=5).encode() + b"\nIt is caf\xe9.\n\xff.\n")
    (shards / "7.txt").write_text("")
    made = prepare(text_config(tmp_path, paths=[str(shards)], min_document_characters=7, deduplicate=True), progress=False)
    source = manifest_of(made)["sources"]["text"]
    reading, kept = source["reading"], sum(split["documents"] for split in source["counts"].values())
    assert reading["documents"] == kept + reading["too_short"] + reading["without_tokens"] + reading["duplicates"]
    assert reading["files"] == 10
    assert (reading["too_short"], reading["bad_unicode"]) == (7 + 7, 2)  # "Tiny." and the zero-width space, in all shards but 3, 5 and 7
    assert reading["duplicates"] == 6 * 2
    troubles = {Path(name).name: trouble for name, trouble in source["troubles"].items()}
    assert troubles.keys() == {"3.txt.bz2", "5.txt", "7.txt"}
    cut = troubles["3.txt.bz2"]
    assert 0 < cut["documents"] < 2000 and cut["cut_short"]
    assert troubles["5.txt"]["bad_unicode"] == 2 and troubles["7.txt"] == {"documents": 0}
    said = "\n".join(describe(manifest_of(made)))
    assert f"{reading['documents']:,} documents from 10 files" in said and "14 too short, 12 copies of others" in said
    assert f"cut short ({cut['cut_short']}); the {cut['documents']:,} documents before that are used" in said
    assert "5.txt: 2 lines with bytes that are not UTF-8; they became U+FFFD" in said and "7.txt: holds no text" in said


def test_sources_lie_apart_and_share_a_tokenizer(tmp_path):
    for name in ("wiki", "books"):
        (tmp_path / f"{name}.txt").write_text(english(20, seed=len(name)))
    mixture = {name: {"paths": [str(tmp_path / f"{name}.txt")], "weight": weight} for name, weight in (("wiki", 3), ("books", 1))}
    data = MixtureDataConfig(mixture=mixture, cache_dir=str(tmp_path / "cache"), validation_fraction=0.2)
    prepared = open_prepared(prepare(make_config("bert", data, vocab_size=150), progress=False))
    assert [(source.name, source.weight) for source in prepared.sources] == [("wiki", 3.0), ("books", 1.0)]
    apart = open_prepared(prepare(text_config(tmp_path, paths=mixture["wiki"]["paths"]), progress=False))
    counts = [manifest["sources"][name]["counts"] for manifest, name in ((prepared.manifest, "wiki"), (apart.manifest, "text"))]
    assert counts[0]["train"]["documents"] == counts[1]["train"]["documents"]
    data.mixture["wiki"].weight = 1.0  # weights are the run's, not the text's
    assert prepare(make_config("bert", data, vocab_size=150), progress=False) == prepared.folder


def test_all_cores_give_the_same_files_as_one(tmp_path, monkeypatch):
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text(english(20, seed=number))
    alone = text_config(tmp_path, paths=[str(tmp_path / "*.txt")])
    first = open_prepared(prepare(alone, progress=False))
    monkeypatch.setattr(preparation, "_SMALL_BYTES", 0)
    monkeypatch.setattr(preparation, "UNIT_BYTES", 1)
    alone.data.cache_dir = str(tmp_path / "cache2")
    assert open_prepared(prepare(alone, progress=False)).fingerprint == first.fingerprint


def test_progress_is_plain_lines_away_from_a_terminal_and_silence_on_request(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pretrain.data.progress._SECONDS_BETWEEN_LINES", 0.0)
    prepare(text_config(tmp_path), progress=False)
    assert capsys.readouterr() == ("", "")
    prepare(text_config(tmp_path, vocab_size=151), progress=True)
    shown = capsys.readouterr().err
    assert "preparing 1 source files" in shown and "tokenizing: " in shown and " left" in shown and "\r" not in shown


def test_the_embedded_corpus_is_prepared(tmp_path):
    data = StdlibDataConfig(cache_dir=str(tmp_path / "cache"))
    folder = prepare(make_config("bert", data, vocab_size=2000), progress=False)
    prepared = open_prepared(folder)
    assert prepared.vocab_size == 2000 and len(prepared.sources[0].train.tokens) > 100_000 and len(prepared.sources[0].valid.tokens) > 500
    assert json.loads((folder / "manifest.json").read_text())["settings"]["tokenizer_kind"] == "wordpiece"


def test_importing_is_light():
    code = "import sys, pretrain.data.prepare, pretrain.data.corpus, pretrain.data.prepared, pretrain.data.tokenizer; "
    code += "print([name for name in ('numpy', 'torch', 'tokenizers', 'transformers', 'tqdm', 'filelock') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def hub_folder(tmp_path):
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "hub").mkdir()
    for split, first in (("train", 0), ("validation", 100)):
        texts = [f"Article number {first + row} of the river." for row in range(20)]
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "hub" / f"{split}-00000-of-00001.parquet")
    return tmp_path / "hub"


def test_a_data_set_s_splits_stay_apart(tmp_path):
    data = HubDataConfig(name=str(hub_folder(tmp_path)), valid_split="validation", cache_dir=str(tmp_path / "cache"))
    prepared = open_prepared(prepare(make_config("bert", data, vocab_size=60), progress=False))
    (source,) = prepared.sources
    tokenizer = load_tokenizer(prepared.tokenizer_dir)
    texts = [tokenizer.decode(np.asarray(split.tokens).tolist()).replace(" ", "") for split in (source.train, source.valid)]
    assert "number5of" in texts[0] and "number105of" not in texts[0] and "number105of" in texts[1]


def test_the_only_document_is_found_in_whatever_segment_it_lies(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "BATCH_CHARACTERS", 10)
    monkeypatch.setattr(segments, "SEGMENT_CHARACTERS", 10)
    monkeypatch.setattr(preparation, "UNIT_BYTES", 1)
    (tmp_path / "a.txt").write_text("The same words.\n")
    (tmp_path / "b.txt").write_text("The same words.\n\nOne of its own.\nAnd a second line.\n")
    mixture = {name: {"paths": [str(tmp_path / f"{name}.txt")]} for name in ("a", "b")}
    data = MixtureDataConfig(mixture=mixture, cache_dir=str(tmp_path / "cache"), deduplicate=True, validation_fraction=0.5)
    (_, second) = open_prepared(prepare(make_config("bert", data, vocab_size=60), progress=False)).sources
    assert len(second.train.tokens) > 0 and len(second.valid.tokens) > 0
