"""The embedded corpus: the English prose that every Python carries.

Help topics of pydoc, docstrings and longer comments of the standard library, read from its source files and never imported.
Code examples, tables and option lists are left out. What a slimmed-down Python lacks is simply not there.
"""

import ast
import inspect
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

_LEFT_OUT_FOLDERS = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "_bundled", "pydoc_data"})
_FEWEST_WORDS = 4
_FEWEST_DOCUMENT_CHARACTERS = 200
_FEWEST_COMMENT_LINES = 3

_COMMENT = re.compile(r"^[ \t]*#+:?[ \t]?(.*)$")
_ROLE = re.compile(r":[a-zA-Z:]+:`~?\.?([^`<]+?)(?:\s*<[^`>]*>)?`")
_QUOTING = re.compile(r"``?([^`]+)``?")
_EMPHASIS = re.compile(r"(?<![\w*])\*{1,2}(?=\w)([^*\n]+?)(?<=\w)\*{1,2}(?![\w*])")
_BULLET = re.compile(r"^\s*(?:[-*+•o]|\(?\d{1,2}[.)])\s+")
_DOCTEST = re.compile(r"^\s*(?:>>>|\.\.\.(?:\s|$)|\.\. |\$ |% |# )")
_CODE_SIGNS = re.compile(r"[={}<>|\\@_;\[\]]|--|\(\)|->|::")
_WORD = re.compile(r"[A-Za-z]+(?:['’-][A-Za-z]+)*")


def stdlib_files() -> list[Path]:
    """The standard library's source files that can hold text, in a fixed order: help topics first, then modules by name."""
    root = Path(sysconfig.get_paths()["stdlib"])
    topics = root / "pydoc_data" / "topics.py"
    modules = sorted(
        (path for path in root.rglob("*.py") if not _LEFT_OUT_FOLDERS.intersection(path.relative_to(root).parts[:-1])),
        key=lambda path: path.relative_to(root).as_posix(),
    )
    return ([topics] if topics.is_file() else []) + modules


def stdlib_documents(path: Path) -> Iterator[list[str]]:
    """The documents of one source file, each a list of paragraphs: every topic of the topics file, or the module as one document."""
    try:
        source = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError):
        return
    texts = _topics(tree) if path.parent.name == "pydoc_data" else ["\n\n".join([*_docstrings(tree), *_comments(source)])]
    for text in texts:
        paragraphs = prose(text)
        if sum(map(len, paragraphs)) >= _FEWEST_DOCUMENT_CHARACTERS:
            yield paragraphs


def prose(text: str) -> list[str]:
    """The paragraphs of `text` that read as English, unwrapped, without markup; a paragraph that stands twice is given once."""
    kept: dict[str, None] = {}
    for block in re.split(r"\n\s*\n", text):
        for paragraph in _paragraphs(block.splitlines()):
            paragraph = _plain(paragraph)
            if _is_prose(paragraph):
                kept[paragraph] = None
    return list(kept)


def _topics(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for value in node.value.values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value


def _docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (text := ast.get_docstring(node)):
            yield text


def _comments(source: str) -> Iterator[str]:
    """Comment blocks of several lines; the licence at the head of a file repeats everywhere and is left out."""
    block: list[str] = []
    for line in [*source.splitlines(), ""]:
        match = _COMMENT.match(line)
        if match:
            block.append(match.group(1))
            continue
        text = inspect.cleandoc("\n".join(["", *block]))
        if len(block) >= _FEWEST_COMMENT_LINES and not re.search(r"copyright|licen[sc]e|warrant", text, re.IGNORECASE):
            yield text
        block = []


def _paragraphs(lines: list[str]) -> Iterator[str]:
    """A block's paragraphs: a list item begins a new one, code lines end one."""
    current: list[str] = []
    for line in lines:
        if _DOCTEST.match(line) or not line.strip():
            break
        if _BULLET.match(line) and current:
            yield " ".join(current)
            current = []
        current.append(_BULLET.sub("", line).strip())
    if current:
        yield " ".join(current)


def _plain(text: str) -> str:
    text = _EMPHASIS.sub(r"\1", _QUOTING.sub(r"\1", _ROLE.sub(r"\1", text)))
    return re.sub(r"\s+", " ", text).replace("::", ":").strip()


def _is_prose(text: str) -> bool:
    """Enough words, mostly of letters, few signs of code, and an end as sentences have it."""
    words = _WORD.findall(text)
    if len(words) < _FEWEST_WORDS or not text[0].isalnum() or text[-1] not in ".!?:)\"'":
        return False
    letters = sum(map(len, words))
    return letters >= 0.72 * len(text) and len(_CODE_SIGNS.findall(text)) <= 0.08 * len(words) and any(word.islower() for word in words)
