"""The examples of a task of GLUE: from its files, tab-separated and without quoting, or from the hub."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pretrain.errors import UserError
from pretrain.finetune.tasks import GlueTask
from pretrain.user_path import user_path

_HUB_NAME = "nyu-mll/glue"


@dataclass(frozen=True)
class Examples:
    """Of one split."""

    texts: list[tuple[str, ...]]
    """The sentence or the two sentences of each example."""
    labels: list[int] | list[float]
    """Its class, or its score."""


def read(task: GlueTask, data_dir: str | None) -> tuple[Examples, dict[str, Examples]]:
    """Training examples, and validation examples by split. Raises UserError, for a damaged line with its file and number."""
    if data_dir is None:
        return _from_hub(task, "train"), {split: _from_hub(task, f"validation{split}") for split in task.splits}
    folder = _folder_of(task, user_path(data_dir, "finetune.data_dir="))
    return read_file(task, folder / task.train_file), {split: read_file(task, folder / name) for split, name in task.eval_files.items()}


def _folder_of(task: GlueTask, given: Path) -> Path:
    names = (task.train_file, *task.eval_files.values())
    for folder in (given, given / task.folder):
        if (folder / task.train_file).exists():
            missing = [name for name in names if not (folder / name).is_file()]
            if missing:
                raise UserError(f"finetune.data_dir: {folder} has no {missing[0]}; task={task.name} needs {', '.join(names)}")
            return folder
    raise UserError(
        f"finetune.data_dir={given} holds no {task.train_file}, nor does {task.folder}/ in it; give the folder with {', '.join(names)}"
    )


# Files ----------------------------------------------------------------------------------------------------------------------------


def read_file(task: GlueTask, path: Path) -> Examples:
    """The examples of one file."""
    texts: list[tuple[str, ...]] = []
    labels: list = []
    lines = _lines(path)
    first = next(lines, (1, []))[1] if task.has_header else []
    places = [_place(column, first, path) for column in (*task.texts, task.label)]
    columns = len(first)
    for number, fields in lines:
        columns = columns or len(fields)
        if len(fields) != columns or len(fields) <= max(places):
            wanted = max(columns, max(places) + 1)
            raise UserError(f"{path}, line {number} has {len(fields)} columns instead of {wanted}; mend the line or take it out")
        *some, label = (fields[place] for place in places)
        texts.append(tuple(some))
        labels.append(_label(task, label, f"{path}, line {number}"))
    if not texts:
        raise UserError(f"{path} holds no examples; give the whole file")
    return Examples(texts, labels)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number from 1, fields) of each line that is not empty. Lines end at a line feed alone: texts hold other separators."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise UserError(f"{path}, line {number} is not valid UTF-8; mend the line or take it out") from error
                if line:
                    yield number, line.split("\t")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); mend its permissions, or give another finetune.data_dir") from error


def _place(column: str | int, header: list[str], path: Path) -> int:
    if isinstance(column, int):
        return column
    if column not in header:
        raise UserError(f"{path} has no column {column!r} in its first line; give the task's own files")
    return header.index(column)


def _label(task: GlueTask, text: str, place: str) -> int | float:
    if task.labels:
        if text not in task.labels:
            raise UserError(f"{place} has the label {text!r}, which is none of {', '.join(task.labels)}; mend the line or take it out")
        return task.labels.index(text)
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise UserError(f"{place} has the score {text!r}, which is no number; mend the line or take it out")
    return score


# Hub ------------------------------------------------------------------------------------------------------------------------------


def _from_hub(task: GlueTask, split: str) -> Examples:
    from pretrain.data.hub import columns_of
    from pretrain.hub_files import NotOnTheHub

    try:
        *texts, labels = columns_of(_HUB_NAME, task.name, split, (*task.hub_texts, "label"))
    except NotOnTheHub as error:
        raise UserError(
            f"{_HUB_NAME} cannot be had from the hub ({error}); give the folder of the task's files as finetune.data_dir=..."
        ) from error
    return Examples(list(zip(*texts, strict=True)), labels)
