import bz2
import gzip
import lzma

import pytest

from pretrain.config.schema import StdlibDataConfig, TextDataConfig
from pretrain.data import corpus
from pretrain.data.corpus import documents, open_corpora
from pretrain.errors import UserError


def read(*paths, **settings):
    return list(documents(TextDataConfig(paths=[str(path) for path in paths], **settings)))


def test_blank_lines_end_documents_and_lines_are_kept_as_they_are(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffOne. \r\n  Two.\r\n\r\n \t\n\nThree – é.".encode())
    assert read(tmp_path / "a.txt") == [["One. ", "  Two."], ["Three – é."]]


@pytest.mark.parametrize("suffix, compress", [(".bz2", bz2.compress), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_compressed_files_are_read_as_they_are(tmp_path, suffix, compress):
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(compress(b"One.\n\nTwo."))
    assert read(path) == [["One."], ["Two."]]


def test_folders_globs_and_order(tmp_path):
    for name in ("b/2.txt", "b/1.txt", "a.txt", ".hidden", "b/.git/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert read(tmp_path) == [["a.txt"], ["b/1.txt"], ["b/2.txt"]]
    assert read(tmp_path / "b" / "*.txt", tmp_path) == [["b/1.txt"], ["b/2.txt"], ["a.txt"]]
    assert read(tmp_path / "**" / "1.txt") == [["b/1.txt"]]


def test_a_name_with_glob_characters_is_taken_literally_where_it_exists(tmp_path):
    (tmp_path / "a[1].txt").write_text("One.")
    assert read(tmp_path / "a[1].txt") == [["One."]]


def test_text_without_blank_lines_is_cut_into_bounded_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "LONGEST_DOCUMENT_CHARACTERS", 20)
    (tmp_path / "a.txt").write_text("12345678\n" * 5)
    assert [len(document) for document in read(tmp_path / "a.txt")] == [3, 2]


def test_content_hash_depends_on_content_and_order_not_on_place(tmp_path):
    for name, text in (("a.txt", "One."), ("b.txt", "Two."), ("c.txt", "One.")):
        (tmp_path / name).write_text(text)

    def hash_of(*names):
        return open_corpora(TextDataConfig(paths=[str(tmp_path / name) for name in names]))[0].content_hash()

    assert hash_of("a.txt") == hash_of("c.txt") != hash_of("b.txt")
    assert hash_of("a.txt", "b.txt") != hash_of("b.txt", "a.txt")


def test_the_embedded_corpus_is_english():
    found = list(documents(StdlibDataConfig()))
    assert len(found) > 100
    text = " ".join(line for document in found for line in document)
    assert len(text) > 500_000
    assert sum(character.isalpha() or character == " " for character in text) / len(text) > 0.93
    assert ">>>" not in text


def test_a_python_without_sources_is_told_to_bring_text(monkeypatch):
    monkeypatch.setattr(corpus, "stdlib_files", list)
    with pytest.raises(UserError, match="data=text"):
        open_corpora(StdlibDataConfig())


@pytest.mark.parametrize(
    "paths, message",
    [
        ([], "data.paths is empty; give text files"),
        (["missing.txt"], "missing.txt does not exist; mend the path"),
        (["no*.txt"], r"no\*.txt matches no file; mend"),
        (["."], "holds no files"),
    ],
)
def test_paths_that_lead_nowhere(tmp_path, monkeypatch, paths, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        open_corpora(TextDataConfig(paths=paths))


def test_validation_text_that_is_training_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("One.")
    with pytest.raises(UserError, match="a.txt is in data.paths and in data.valid_paths"):
        open_corpora(TextDataConfig(paths=[str(tmp_path)], valid_paths=[str(tmp_path / "*.txt")]))


@pytest.mark.parametrize("suffix, compress", [("", bytes), (".gz", gzip.compress)])
def test_an_undecodable_file_is_named_with_the_byte(tmp_path, suffix, compress):
    path = tmp_path / f"bad.txt{suffix}"
    path.write_bytes(compress("Zürich.\nIt is ".encode() + b"caf\xe9 here.\n"))
    with pytest.raises(UserError, match=r"bad\.txt.* is not UTF-8 text: byte 0xe9 at byte offset 18"):
        read(path)


@pytest.mark.parametrize("suffix", [".bz2", ".gz", ".xz"])
def test_a_broken_archive_is_named(tmp_path, suffix):
    (tmp_path / f"bad{suffix}").write_bytes(b"not an archive")
    with pytest.raises(UserError, match=rf"bad\{suffix} cannot be read as {suffix[1:]} data"):
        read(tmp_path / f"bad{suffix}")


def test_a_truncated_archive_is_named(tmp_path):
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"One.\n" * 1000)[:-9])
    with pytest.raises(UserError, match="cut.gz cannot be read as gz data"):
        read(tmp_path / "cut.gz")
