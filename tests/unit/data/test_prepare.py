import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from pretrain import durable
from pretrain.config.schema import StdlibDataConfig, TextDataConfig
from pretrain.data import prepare as prepare_module
from pretrain.data import token_files
from pretrain.data.prepare import prepare
from pretrain.data.prepared import open_prepared, unigram_log_probs
from pretrain.data.tokenizer import load_tokenizer
from pretrain.errors import UserError
from tests.unit.data.corpora import english, make_config


def config(tmp_path, family="bert", text=None, **data):
    path = tmp_path / "corpus.txt"
    if text is not None or not path.exists():
        path.write_text(english(30) if text is None else text, encoding="utf-8")
    vocab_size = data.pop("vocab_size", {"bert": 150, "gpt2": 300}[family])
    settings = {"paths": [str(path)], "cache_dir": str(tmp_path / "cache"), "validation_fraction": 0.2} | data
    return make_config(family, TextDataConfig(**settings), vocab_size=vocab_size)


def entries(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".lock"))


def test_bert_sentences_come_back_from_the_files(tmp_path):
    prepared = open_prepared(prepare(config(tmp_path), progress=False))
    tokenizer = load_tokenizer(prepared.tokenizer_dir)
    found = []
    for split in (prepared.train, prepared.valid):
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
    prepared = open_prepared(prepare(config(tmp_path, "gpt2", text), progress=False))
    tokenizer = load_tokenizer(prepared.tokenizer_dir)
    found = []
    for split in (prepared.train, prepared.valid):
        for start, end in zip(split.sentence_starts[:-1], split.sentence_starts[1:]):
            ids = split.tokens[start:end].tolist()
            assert ids.pop() == prepared.special.eot and prepared.special.eot not in ids
            found.append(tokenizer.decode(ids))
    assert sorted(found) == sorted(text.split("\n\n"))


def test_manifest_and_unigram_counts_agree_with_the_files(tmp_path):
    prepared = open_prepared(prepare(config(tmp_path), progress=False))
    for name, split in (("train", prepared.train), ("valid", prepared.valid)):
        counts = prepared.manifest["counts"][name]
        assert counts["tokens"] == len(split.tokens) and counts["sentences"] == len(split.sentence_starts) - 1
        assert counts["documents"] == len(split.document_starts) - 1 > 0
        assert split.tokens.dtype == np.uint16
    assert np.array_equal(prepared.unigram_counts, np.bincount(prepared.train.tokens, minlength=prepared.vocab_size))
    log_probs = unigram_log_probs(prepared)
    assert log_probs.dtype == np.float64 and np.exp(log_probs).sum() == pytest.approx(1)
    assert np.argmax(log_probs) == np.argmax(prepared.unigram_counts)


def test_large_vocabularies_take_four_bytes():
    assert [token_files.token_dtype(size).itemsize for size in (1 << 16, (1 << 16) + 1)] == [2, 4]


def test_many_small_batches_give_the_same_files(tmp_path, monkeypatch):
    first = open_prepared(prepare(config(tmp_path), progress=False))
    monkeypatch.setattr(token_files, "_BATCH_CHARACTERS", 100)
    second = open_prepared(prepare(config(tmp_path, cache_dir=str(tmp_path / "cache2")), progress=False))
    assert first.fingerprint == second.fingerprint


def test_the_second_time_it_is_only_looked_up(tmp_path, monkeypatch):
    folder = prepare(config(tmp_path), progress=False)
    monkeypatch.setattr(prepare_module, "_build", None)
    start = time.monotonic()
    assert prepare(config(tmp_path), progress=False) == folder
    assert time.monotonic() - start < 1
    longer = config(tmp_path)
    longer.data.max_seq_length = 512
    assert prepare(longer, progress=False) == folder


def test_what_changes_the_result_changes_the_key(tmp_path):
    def folder(**settings):
        return prepare(config(tmp_path, **settings), progress=False)

    folders = [folder(), folder(vocab_size=151), folder(validation_fraction=0.3), folder(family="gpt2")]
    uncased = config(tmp_path)
    uncased.tokenizer.lowercase = False
    folders.append(prepare(uncased, progress=False))
    folders.append(folder(text=english(31)))
    assert len(set(folders)) == len(folders)


def test_given_validation_text_is_used_whole_and_alone(tmp_path):
    (tmp_path / "valid.txt").write_text("The river window.\nThe garden stone.\n")
    prepared = open_prepared(prepare(config(tmp_path, valid_paths=[str(tmp_path / "valid.txt")]), progress=False))
    assert prepared.manifest["counts"]["valid"]["sentences"] == 2
    assert prepared.manifest["counts"]["train"]["documents"] == 30


def test_a_corpus_of_one_document_has_a_validation_tail(tmp_path):
    prepared = open_prepared(prepare(config(tmp_path, text=english(1, sentences=(40, 40))), progress=False))
    assert [prepared.manifest["counts"][split]["sentences"] for split in ("train", "valid")] == [32, 8]


@pytest.mark.parametrize("text", ["", "\n \n\n", "\ufeff"])
def test_an_empty_corpus_is_refused_and_leaves_nothing(tmp_path, text):
    with pytest.raises(UserError, match="data.paths holds no text .*; give files with text"):
        prepare(config(tmp_path, text=text), progress=False)
    assert entries(tmp_path) == []


def test_empty_validation_text_is_refused(tmp_path):
    (tmp_path / "valid.txt").write_text("\n")
    with pytest.raises(UserError, match="data.valid_paths holds no text"):
        prepare(config(tmp_path, valid_paths=[str(tmp_path / "valid.txt")]), progress=False)
    assert entries(tmp_path) == []


def test_an_undecodable_file_leaves_nothing(tmp_path):
    (tmp_path / "corpus.txt").write_bytes(english(5).encode() + b"\xff")
    with pytest.raises(UserError, match="is not UTF-8 text: byte 0xff at byte offset"):
        prepare(config(tmp_path), progress=False)
    assert entries(tmp_path) == []


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data.cache_dir=.*file/cache cannot be written \(.*\); give a folder that can"):
        prepare(config(tmp_path, cache_dir=str(tmp_path / "file" / "cache")), progress=False)


def test_missing_text_is_found_before_the_cache_is_touched(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        prepare(config(tmp_path, paths=[str(tmp_path / "missing.txt")]), progress=False)
    assert not (tmp_path / "cache").exists()


def test_a_damaged_folder_is_made_again(tmp_path):
    folder = prepare(config(tmp_path), progress=False)
    fingerprint = open_prepared(folder).fingerprint
    os.truncate(folder / "train.tokens", 10)
    with pytest.raises(UserError, match="train.tokens is missing or cut short"):
        open_prepared(folder)
    assert prepare(config(tmp_path), progress=False) == folder
    assert open_prepared(folder).fingerprint == fingerprint


PROCESS = """
    import sys
    from tests.unit.data.test_prepare import config
    from pathlib import Path
    from pretrain.data import prepare as module
    build = module._build
    def slow_build(*arguments):
        print("building", flush=True)
        {before}
        build(*arguments)
    module._build = slow_build
    print("folder", module.prepare(config(Path(sys.argv[1]))), flush=True)
"""


def start(tmp_path, before):
    code = textwrap.dedent(PROCESS.format(before=before))
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=root, env=environment, text=True, **pipes)


def test_two_processes_at_once_prepare_once_and_the_second_says_that_it_waits(tmp_path):
    config(tmp_path)
    processes = [start(tmp_path, "import time; time.sleep(1.5)") for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sorted(output.count("building") for output, _ in outputs) == [0, 1]
    assert sum("another process is preparing" in errors for _, errors in outputs) == 1
    assert len({output.split("folder ")[1] for output, _ in outputs}) == 1
    assert len(entries(tmp_path)) == 1


def test_a_preparation_that_is_killed_leaves_nothing_that_counts(tmp_path):
    config(tmp_path)
    process = start(tmp_path, "import time; module.durable.flush_tree = lambda part: (print('written', flush=True), time.sleep(60))")
    while (line := process.stdout.readline()) and line.strip() != "written":
        pass
    assert line.strip() == "written"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [".part-" in name for name in entries(tmp_path)] == [True]
    folder = prepare(config(tmp_path), progress=False)
    assert entries(tmp_path) == [folder.name]
    open_prepared(folder)


def test_a_signal_that_stops_python_cleans_up(tmp_path, monkeypatch):
    def interrupted(part):
        raise KeyboardInterrupt

    monkeypatch.setattr(durable, "flush_tree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(config(tmp_path), progress=False)
    assert entries(tmp_path) == []


def test_progress_is_plain_lines_away_from_a_terminal_and_silence_on_request(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pretrain.data.progress._SECONDS_BETWEEN_LINES", 0.0)
    prepare(config(tmp_path), progress=False)
    assert capsys.readouterr() == ("", "")
    prepare(config(tmp_path, vocab_size=151), progress=True)
    shown = capsys.readouterr().err
    assert "preparing 1 source files" in shown and "tokenizing: " in shown and "\r" not in shown


def test_the_embedded_corpus_is_prepared(tmp_path):
    data = StdlibDataConfig(cache_dir=str(tmp_path / "cache"))
    folder = prepare(make_config("bert", data, vocab_size=2000), progress=False)
    prepared = open_prepared(folder)
    assert prepared.vocab_size == 2000 and len(prepared.train.tokens) > 100_000 and len(prepared.valid.tokens) > 500
    assert json.loads((folder / "manifest.json").read_text())["settings"]["tokenizer_kind"] == "wordpiece"


def test_importing_is_light():
    code = "import sys, pretrain.data.prepare, pretrain.data.corpus, pretrain.data.prepared, pretrain.data.tokenizer; "
    code += "print([name for name in ('numpy', 'torch', 'tokenizers', 'transformers', 'tqdm', 'filelock') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
