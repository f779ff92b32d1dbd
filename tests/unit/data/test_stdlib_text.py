from pathlib import Path

from pretrain.data.stdlib_text import prose, stdlib_documents, stdlib_files

MODULE = '''"""Tools for the careful reader of long and winding books.

    >>> read("book")
    42

+------+------+
| a    | b    |
+======+======+
"""

# Copyright 1901 by somebody or other who keeps
# every right that there may be in the whole of
# this file, without any warranty at all.

# The following part of the module looks after the pages
# that were torn out of the book by an impatient reader
# and glued into it again the day after.

def turn(page):
    """Turn the page, which is a :class:`Page`, and return the *next* one
    unless the book has come to an end.

    - page is the ``Page`` to be turned over by this function.
    """
'''


def test_docstrings_and_comments_become_clean_paragraphs(tmp_path: Path):
    (tmp_path / "module.py").write_text(MODULE)
    assert list(stdlib_documents(tmp_path / "module.py")) == [
        [
            "Tools for the careful reader of long and winding books.",
            "Turn the page, which is a Page, and return the next one unless the book has come to an end.",
            "page is the Page to be turned over by this function.",
            "The following part of the module looks after the pages that were torn out of the book by an impatient reader and glued "
            "into it again the day after.",
        ]
    ]


def test_every_topic_is_a_document(tmp_path: Path):
    (tmp_path / "pydoc_data").mkdir()
    path = tmp_path / "pydoc_data" / "topics.py"
    sentence = "This is a long sentence about a topic that somebody wants to know about. "
    path.write_text(f"topics = {{'a': {sentence * 4!r}, 'b': {sentence * 5!r}, 'tiny': 'Too short.'}}\n")
    assert len(list(stdlib_documents(path))) == 2


def test_files_that_are_no_python_hold_nothing(tmp_path: Path):
    (tmp_path / "a.py").write_text("def (:")
    (tmp_path / "b.py").write_bytes(b"\xff\xfe")
    assert [list(stdlib_documents(tmp_path / name)) for name in ("a.py", "b.py", "missing.py")] == [[], [], []]


def test_code_is_not_prose():
    assert prose("x = y[0] + z[1]; return {a: b}\n\nSignature: f(a, b, *, c=None) -> dict[str, int]\n\n=====  =====") == []


def test_tests_and_installed_packages_are_left_out():
    files = stdlib_files()
    assert len(files) == len(set(files))
    assert not {"test", "tests", "site-packages", "idle_test"}.intersection(part for path in files for part in path.parent.parts[-2:])
