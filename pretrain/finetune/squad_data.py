"""The questions of SQuAD v1.1, from its JSON files or from the hub."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain.errors import UserError
from pretrain.user_path import user_path

_HUB_NAME = "rajpurkar/squad"
_WANTED = "give the folder of train-v1.1.json and dev-v1.1.json"


@dataclass(frozen=True)
class Question:
    """A question about a text, with its answers, which are pieces of the text."""

    id: str
    question: str
    context: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]
    """First character of each answer in the text."""


def read(data_dir: str | None) -> tuple[list[Question], list[Question]]:
    """Training and validation questions. Raises UserError."""
    if data_dir is None:
        return _from_hub("train"), _from_hub("validation")
    given = user_path(data_dir, "finetune.data_dir=")
    around = not any(given.glob("*.json")) and (given / "squad").is_dir()
    folder = given / "squad" if around else given
    return read_file(_file(folder, "train")), read_file(_file(folder, "dev"))


def _file(folder: Path, split: str) -> Path:
    found = sorted(folder.glob(f"*{split}*.json"))
    if not found:
        raise UserError(f"finetune.data_dir={folder} holds no *{split}*.json; {_WANTED}")
    if len(found) > 1:
        raise UserError(f"finetune.data_dir={folder} holds {', '.join(path.name for path in found)}; leave one *{split}*.json there")
    return found[0]


def read_file(path: Path) -> list[Question]:
    """The questions of one file. Raises UserError, naming the question where only one of them is at fault."""
    try:
        articles = json.loads(path.read_text(encoding="utf-8-sig"))["data"]
        questions = list(_questions(articles))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); mend its permissions, or give another finetune.data_dir") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not in SQuAD's format ({type(error).__name__}: {error}); {_WANTED}") from error
    if not questions:
        raise UserError(f"{path} holds no questions; {_WANTED}")
    for asked in questions:
        _check(asked, path)
    return questions


def _questions(articles: list[dict[str, Any]]) -> Iterator[Question]:
    for article in articles:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                texts = tuple(_text(answer["text"]) for answer in asked["answers"])
                starts = tuple(int(answer["answer_start"]) for answer in asked["answers"])
                yield Question(_text(asked["id"]), _text(asked["question"]), _text(paragraph["context"]), texts, starts)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _check(asked: Question, path: Path) -> None:
    if not asked.answers:
        raise UserError(f"{path}: question {asked.id} has no answer, as in SQuAD v2.0; give the files of v1.1")
    for text, start in zip(asked.answers, asked.starts, strict=True):
        if not text or asked.context[start : start + len(text)] != text:
            raise UserError(
                f"{path}: the answer {text!r} of question {asked.id} is not at character {start} of its text; mend or leave it out"
            )


def _from_hub(split: str) -> list[Question]:
    from pretrain.data.hub import columns_of
    from pretrain.hub_files import NotOnTheHub

    try:
        columns = columns_of(_HUB_NAME, None, split, ("id", "question", "context", "answers"))
    except NotOnTheHub as error:
        raise UserError(f"{_HUB_NAME} cannot be had from the hub ({error}); give finetune.data_dir=..., {_WANTED}") from error
    return [
        Question(name, question, context, tuple(answers["text"]), tuple(answers["answer_start"]))
        for name, question, context, answers in zip(*columns, strict=True)
    ]
