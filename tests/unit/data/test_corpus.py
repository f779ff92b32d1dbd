import bz2
import gzip
import json
import lzma
import os
from functools import partial

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from pretrain.config.schema import HubDataConfig, MixtureDataConfig, StdlibDataConfig, TextDataConfig
from pretrain.data import corpus, file_hashes, parts, reading
from pretrain.data.corpus import open_sources
from pretrain.data.reading import ReadLog
from pretrain.errors import UserError


def documents_of(data):
    return [document for source in open_sources(data) for document in source.train.documents()]


def read(*paths, **settings):
    return documents_of(TextDataConfig(paths=[str(path) for path in paths], **settings))


def read_with_logs(path, text_field="text"):
    """Documents and the log of each part."""
    logs, documents = [], []
    for part in parts.parts_of(path, text_field):
        logs.append(ReadLog(part.name))
        documents += part.documents(logs[-1])
    return documents, logs


def test_blank_lines_end_documents_and_lines_are_kept_as_they_are(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffOne. \r\n  Two.\r\n\r\n \t\n\nThree – é.".encode())
    assert read(tmp_path / "a.txt") == ["One. \n  Two.", "Three – é."]


def test_a_file_is_one_document_as_it_stands_where_that_is_asked_for(tmp_path, monkeypatch):
    text = " \n = One = \n\n Two.\n \n\n Three\n \n"
    (tmp_path / "a.txt").write_bytes(("\ufeff" + text).encode())
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(text.replace("\n", "\r\n").encode()))
    (tmp_path / "c.txt").write_text(" \n\n")
    (tmp_path / "d.jsonl").write_text('{"text": "From JSON.\\n"}\n')
    assert read(tmp_path, documents="file") == [text, text, "From JSON."]
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 8)
    monkeypatch.setattr(parts, "LONGEST_WHOLE_FILE_CHARACTERS", 20)
    cut = read(tmp_path / "a.txt", documents="file")
    assert "".join(cut) == text and len(cut) == 2 and max(map(len, cut)) <= 20
    with pytest.raises(UserError, match="data.documents=page is not valid; give one of blank_line, file"):
        TextDataConfig(documents="page")


PACKERS = {".bz2": bz2.compress, ".gz": gzip.compress, ".xz": partial(lzma.compress, preset=0), ".zst": zstandard.compress}


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_files_are_read_as_they_are(tmp_path, suffix):
    pack = PACKERS[suffix]
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(pack(b"One.\n\nTwo.") + pack(b"\n\nThree."))  # two streams one behind the other, as parallel packers write them
    assert read(path) == ["One.", "Two.", "Three."]


def write_parquet(path, texts, column="text", rows_per_group=2):
    table = pyarrow.table({"id": range(len(texts)), column: texts})
    pyarrow.parquet.write_table(table, path, row_group_size=rows_per_group)
    return path


def test_formats_are_mixed_freely(tmp_path):
    (tmp_path / "a.txt").write_text("From text.")
    (tmp_path / "b.jsonl").write_text('{"text": "From JSON.\\n\\nA second paragraph.", "id": 1}\n\n{"text": " "}\n')
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress(b'{"text": "From packed JSON."}'))
    write_parquet(tmp_path / "d.parquet", ["From", "Parquet.\r\nHere.", ""])
    assert read(tmp_path) == ["From text.", "From JSON.\n\nA second paragraph.", "From packed JSON.", "From", "Parquet.\r\nHere."]


def test_the_text_field_has_the_name_given(tmp_path):
    (tmp_path / "b.jsonl").write_text('{"body": "One."}\n')
    write_parquet(tmp_path / "d.parquet", ["Two."], column="body")
    assert read(tmp_path, text_field="body") == ["One.", "Two."]
    with pytest.raises(UserError, match=r"d.parquet has no column 'text' but id, body; give data.text_field"):
        read(tmp_path / "d.parquet")
    with pytest.raises(
        UserError, match=r"b.jsonl: 1 of 1 records have no text in the field asked for; they have body: give data.text_field"
    ):
        read(tmp_path / "b.jsonl")


def test_records_without_text_are_counted_and_left_out(tmp_path):
    records = ['{"text": "One."}', "not JSON", '{"text": null}', '{"text": "Two."}', '{"text": "Three."}']
    (tmp_path / "a.jsonl").write_text("\n".join(records))
    documents, (log,) = read_with_logs(tmp_path / "a.jsonl")
    assert documents == ["One.", "Two.", "Three."]
    assert (log.lines, log.documents, log.bad_records) == (5, 3, 2)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_stretches_of_a_large_file_give_the_same_documents(tmp_path, monkeypatch, name):
    texts = [f"Document {number}.\nWith two lines of é." for number in range(200)]
    content = "\n\n".join(texts) if name == "a.txt" else "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    (tmp_path / name).write_text(content)
    monkeypatch.setattr(parts, "STRETCH_BYTES", 1000)
    monkeypatch.setattr(parts, "_SEARCH_BYTES", 16)
    documents, logs = read_with_logs(tmp_path / name)
    assert documents == texts and len(logs) > 5


def test_row_groups_are_taken_together_up_to_a_size(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet", [f"Document {number}." for number in range(100)])
    assert len(parts.parts_of(path, "text")) == 1
    monkeypatch.setattr(parts, "STRETCH_BYTES", 500)
    documents, logs = read_with_logs(path)
    assert documents == [f"Document {number}." for number in range(100)] and 2 < len(logs) < 50


@pytest.mark.parametrize("block_bytes", [1, 3, 7, 64])
def test_blocks_may_end_anywhere(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(reading, "_BLOCK_BYTES", block_bytes)
    (tmp_path / "a.txt").write_bytes("\ufeffÉins – 東京.\r\nzwei\n \n\n drei\n\n\n".encode())
    assert read(tmp_path / "a.txt") == ["Éins – 東京.\nzwei", " drei"]


def test_long_documents_and_lines_are_cut_where_a_line_or_a_character_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "LONGEST_DOCUMENT_CHARACTERS", 20)
    (tmp_path / "a.txt").write_text("12345678\n" * 5)
    assert [len(document.split("\n")) for document in read(tmp_path / "a.txt")] == [2, 2, 1]
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 8)
    monkeypatch.setattr(parts, "blocks", lambda path, log, start, stop: reading.blocks(path, log, start, stop, longest_line=10))
    (tmp_path / "b.txt").write_text("東" * 50)
    documents, (log,) = read_with_logs(tmp_path / "b.txt")
    assert "".join(documents) == "東" * 50 and max(map(len, documents)) <= 20 and log.bad_unicode == 0


def test_folders_globs_and_order(tmp_path):
    for name in ("b/2.txt", "b/1.txt", "a.txt", ".hidden", "b/.git/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert read(tmp_path) == ["a.txt", "b/1.txt", "b/2.txt"]
    assert read(tmp_path / "b" / "*.txt", tmp_path) == ["b/1.txt", "b/2.txt", "a.txt"]
    assert read(tmp_path / "**" / "1.txt") == ["b/1.txt"]


def test_a_name_with_glob_characters_is_taken_literally_where_it_exists(tmp_path):
    (tmp_path / "a[1].txt").write_text("One.")
    assert read(tmp_path / "a[1].txt") == ["One."]


def test_identity_depends_on_content_and_order_not_on_place(tmp_path):
    for name, text in (("a.txt", "One."), ("b.txt", "Two."), ("c.txt", "One."), ("a.jsonl", "One.")):
        (tmp_path / name).write_text(text)

    def identity_of(*names, **settings):
        return open_sources(TextDataConfig(paths=[str(tmp_path / name) for name in names], **settings))[0].train.identity

    assert identity_of("a.txt") == identity_of("c.txt") != identity_of("b.txt")
    assert identity_of("a.txt", "b.txt") != identity_of("b.txt", "a.txt")
    assert identity_of("a.txt") != identity_of("a.jsonl")  # the same bytes, read another way
    assert identity_of("a.txt") != identity_of("a.txt", documents="file") == identity_of("c.txt", documents="file")
    assert identity_of("a.jsonl") == identity_of("a.jsonl", documents="file")  # of records it says nothing


def test_unchanged_files_are_hashed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(file_hashes, "_WORTH_REMEMBERING_BYTES", 0)
    path = tmp_path / "a.txt"
    path.write_text("One.")
    (first,) = file_hashes.FileHashes(tmp_path / "cache").of([path])
    monkeypatch.setattr(file_hashes, "sha256_of", None)
    assert file_hashes.FileHashes(tmp_path / "cache").of([path]) == [first]
    monkeypatch.undo()
    path.write_text("Two.")
    os.utime(path, ns=(0, 0))
    assert file_hashes.FileHashes(tmp_path / "cache").of([path]) != [first]


def test_the_embedded_corpus_is_english():
    found = documents_of(StdlibDataConfig())
    assert len(found) > 100
    text = " ".join(found)
    assert len(text) > 500_000
    assert sum(character.isalpha() or character in " \n" for character in text) / len(text) > 0.93
    assert ">>>" not in text


def test_a_python_without_sources_is_told_to_bring_text(monkeypatch):
    monkeypatch.setattr(corpus, "stdlib_files", list)
    with pytest.raises(UserError, match="data=text"):
        open_sources(StdlibDataConfig())


@pytest.mark.parametrize(
    "paths, message",
    [
        ([], "data.paths is empty; give files"),
        (["missing.txt"], "missing.txt does not exist; mend the path"),
        (["no*.txt"], r"no\*.txt matches no file; mend"),
        (["."], "holds no files"),
    ],
)
def test_paths_that_lead_nowhere(tmp_path, monkeypatch, paths, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        open_sources(TextDataConfig(paths=paths))


def test_validation_text_that_is_training_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("One.")
    with pytest.raises(UserError, match="a.txt is in data.paths and in data.valid_paths"):
        open_sources(TextDataConfig(paths=[str(tmp_path)], valid_paths=[str(tmp_path / "*.txt")]))


def test_bytes_that_are_not_unicode_are_replaced_and_counted(tmp_path):
    lines = ["Zürich.".encode(), b"It is caf\xe9 here.", b"Good.", b"\xff\xfe", b"More.", b"Still more."]
    (tmp_path / "a.txt").write_bytes(b"\n".join(lines))
    (document,), (log,) = read_with_logs(tmp_path / "a.txt")
    assert document == "Zürich.\nIt is caf\ufffd here.\nGood.\n\ufffd\ufffd\nMore.\nStill more."
    assert (log.lines, log.bad_unicode) == (6, 2)


def test_half_a_surrogate_pair_in_json_is_replaced_and_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "One \\ud83d."}\n{"text": "Two \\ud83d\\ude00."}')
    documents, (log,) = read_with_logs(tmp_path / "a.jsonl")
    assert documents == ["One \ufffd.", "Two 😀."] and log.bad_unicode == 1


def test_a_file_that_is_mostly_not_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\nna\xefve\nplain\n")
    with pytest.raises(UserError, match=r"a\.txt is not UTF-8 text: 2 of 3 lines hold bytes that are not; convert"):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize("suffix", PACKERS)
def test_what_is_no_archive_is_refused(tmp_path, suffix):
    (tmp_path / f"bad{suffix}").write_bytes(b"not an archive")
    with pytest.raises(UserError, match=rf"bad\{suffix} cannot be read \(.+\); replace the file"):
        read(tmp_path / f"bad{suffix}")


@pytest.mark.parametrize("suffix", PACKERS)
def test_of_a_cut_archive_the_whole_documents_before_the_cut_are_used(tmp_path, suffix):
    texts = [f"Document {number}.\n{os.urandom(400).hex()}" for number in range(5000)]
    packed = PACKERS[suffix]("\n\n".join(texts).encode())
    (tmp_path / f"cut.txt{suffix}").write_bytes(packed[: len(packed) * 2 // 3])
    documents, (log,) = read_with_logs(tmp_path / f"cut.txt{suffix}")
    assert 0 < len(documents) < 5000 and documents == texts[: len(documents)]
    assert log.cut_short and log.documents == len(documents)


def test_a_cut_parquet_file_is_refused(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", ["One."] * 100)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(UserError, match=r"a.parquet cannot be read as Parquet data \(.*\); replace the file"):
        read(path)


# The hub ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A data set in the layout of a hub repository: two configurations in Parquet shards, two splits."""
    folder = tmp_path_factory.mktemp("hub") / "tiny-wikipedia"
    for subset, split, shard, first in (("en", "train", 0, 0), ("en", "train", 1, 30), ("en", "test", 0, 60), ("de", "train", 0, 90)):
        (folder / subset).mkdir(parents=True, exist_ok=True)
        write_parquet(folder / subset / f"{split}-{shard:05d}-of-00002.parquet", [f"Article {first + row}." for row in range(30)])
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: en\n  data_files:\n  - split: train\n    path: en/train-*\n  - split: test\n    path: en/test-*\n"
        "- config_name: de\n  data_files: de/train-*\n---\n"
    )
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("streaming", [True, False])
def test_a_repository_is_read_streamed_or_downloaded(repository, streaming):
    data = HubDataConfig(name=str(repository), subset="en", valid_split="test", streaming=streaming)
    (source,) = open_sources(data)
    assert list(source.train.documents()) == [f"Article {number}." for number in range(60)]
    assert list(source.valid.documents()) == [f"Article {number}." for number in range(60, 90)]
    assert len(source.train.parts()) == (2 if streaming else 1)


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(
    "settings, message",
    [
        ({}, "Config name is missing.*; give one of its configurations as data.subset"),
        ({"subset": "fr"}, "BuilderConfig 'fr' not found.*; give one of its configurations as data.subset"),
        ({"subset": "en", "split": "dev"}, "split.*dev.*; give one of its splits as data.split"),
        ({"subset": "en", "text_field": "body"}, "has no column 'body' but id, text; give data.text_field"),
    ],
)
def test_what_the_library_objects_to_is_one_line(repository, streaming, settings, message):
    with pytest.raises(UserError, match=message) as caught:
        documents_of(HubDataConfig(name=str(repository), streaming=streaming, **settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("streaming", [True, False])
def test_records_of_a_data_set_without_text_are_counted(tmp_path, streaming):
    (tmp_path / "set").mkdir()
    write_parquet(tmp_path / "set" / "train-00000-of-00001.parquet", ["One.", "", None, "Two.", " "])
    (part,) = open_sources(HubDataConfig(name=str(tmp_path / "set"), streaming=streaming))[0].train.parts()
    log = ReadLog(part.name)
    with pytest.raises(UserError, match="3 of 5 records have no text"):  # which is most of them, said once all are read
        list(part.documents(log))
    assert (log.lines, log.documents, log.bad_records) == (5, 2, 3)


def test_a_repository_that_cannot_be_reached_is_one_line():
    with pytest.raises(UserError, match="data.name=nobody/nothing cannot be read: .*; check the name and the connection"):
        documents_of(HubDataConfig(name="nobody/nothing"))


def test_a_mixture_holds_files_and_data_sets(repository, tmp_path):
    (tmp_path / "book.txt").write_text("A book.")
    sources = open_sources(
        MixtureDataConfig(mixture={"books": {"paths": [str(tmp_path)], "weight": 3}, "wiki": {"name": str(repository), "subset": "de"}})
    )
    assert [(source.name, source.weight) for source in sources] == [("books", 3.0), ("wiki", 1.0)]
    assert [next(source.train.documents()) for source in sources] == ["A book.", "Article 90."]


# What a hostile file system and hostile files look like --------------------------------------------------------------------------


def test_links_are_followed_and_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.txt").write_text("One.")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "back").symlink_to(tmp_path / "real")
    assert read(tmp_path / "corpus") == ["One."]
    (tmp_path / "corpus" / "gone.txt").symlink_to(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"gone.txt is a link to nothing; leave it out or mend it"):
        read(tmp_path / "corpus")


def test_validation_text_that_is_training_text_by_a_link_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("One.")
    (tmp_path / "alias.txt").symlink_to(tmp_path / "a.txt")
    with pytest.raises(UserError, match="alias.txt is in data.paths and in data.valid_paths"):
        open_sources(TextDataConfig(paths=[str(tmp_path / "a.txt")], valid_paths=[str(tmp_path / "alias.txt")]))


def test_a_data_set_behind_a_link_is_known_by_its_content(repository, tmp_path):
    identities = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_parquet(tmp_path / name / "train-00000-of-00001.parquet", [f"Of the {name}."])
        link = tmp_path / "data"
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / name)
        identities.append(open_sources(HubDataConfig(name=str(link)))[0].train.identity)
    assert identities[0] != identities[1]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16"])
def test_utf_16_is_not_taken_for_text(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("Hello there.\nAnd again.\n".encode(encoding))
    with pytest.raises(UserError, match=r"a.txt is not UTF-8 text"):
        read(tmp_path / "a.txt")


def test_one_bad_byte_in_a_long_line_is_a_slip(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a long fine line " * 1000 + b"\xe9")
    (document,), (log,) = read_with_logs(tmp_path / "a.txt")
    assert document.endswith("line \ufffd") and log.bad_unicode == 1


def test_bad_bytes_in_parquet_are_replaced_and_counted(tmp_path):
    rows = pyarrow.array([b"One.", b"caf\xe9 " + b"x" * 200, b"Three."], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": rows}), tmp_path / "a.parquet")
    documents, (log,) = read_with_logs(tmp_path / "a.parquet")
    assert documents[1].startswith("caf\ufffd x") and (len(documents), log.bad_unicode) == (3, 1)


def test_json_that_nests_too_deep_is_a_record_without_text(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "One."}\n{"text": ' + "[" * 100_000 + '\n{"text": "Two."}\n{"text": ""}\n{"text": "Three."}'
    )
    documents, (log,) = read_with_logs(tmp_path / "a.jsonl")
    assert documents == ["One.", "Two.", "Three."] and (log.lines, log.bad_records) == (5, 2)


def test_suffixes_are_read_in_any_case_and_empty_archives_are_empty(tmp_path):
    (tmp_path / "A.JSONL.GZ").write_bytes(gzip.compress(b'{"text": "One."}'))
    for suffix in PACKERS:
        (tmp_path / f"empty{suffix}").write_bytes(b"")
    assert read(tmp_path) == ["One."]


def test_the_memory_of_hashes_may_be_damaged(tmp_path):
    for content in ('{"/a": 5}', "[]", "null", "{"):
        (tmp_path / "file_hashes.json").write_text(content)
        (tmp_path / "a.txt").write_text("One.")
        assert len(file_hashes.FileHashes(tmp_path).of([tmp_path / "a.txt"])) == 1
