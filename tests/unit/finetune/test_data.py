"""Examples from files as they are usually downloaded, damaged ones, and from the hub."""

import re
from pathlib import Path

import pytest

from pretrain.data import hub
from pretrain.errors import UserError
from pretrain.finetune import glue_data, squad_data
from pretrain.finetune.tasks import GLUE_TASKS
from tests.unit.finetune.made_tasks import HEADERS, ROWS, labels_of, lines_of, sentences, write_squad, write_task


def refused(task: str, path: Path) -> str:
    with pytest.raises(UserError, match="^[^\n]+$") as error:
        glue_data.read_file(GLUE_TASKS[task], path)
    return str(error.value)


@pytest.mark.parametrize("task", GLUE_TASKS)
@pytest.mark.parametrize("inside", [True, False], ids=["the task's folder", "the folder around it"])
def test_every_task_is_read_whole(tmp_path: Path, task: str, inside: bool) -> None:
    folder = write_task(tmp_path / GLUE_TASKS[task].folder, task)
    train, evaluated = glue_data.read(GLUE_TASKS[task], str(folder if inside else tmp_path))
    made = sentences(64)
    second = ("the cat runs",) * (len(GLUE_TASKS[task].texts) - 1)
    classes = [0, 1] if GLUE_TASKS[task].labels else [1.5, 4.0]
    assert train.texts == [(text, *second) for text, _ in made] and train.labels == [classes[label] for _, label in made]
    assert [len(examples.labels) for examples in evaluated.values()] == [32] * (2 if task == "mnli" else 1)


@pytest.mark.parametrize("task", GLUE_TASKS)
def test_a_byte_order_mark_quotes_and_line_separators_belong_where_they_are(tmp_path: Path, task: str) -> None:
    text = '"The cat\u2028sees\x0b a \u85fb "moon'
    lines = lines_of(task, [(text, 1), ("the sea", 0)])
    (tmp_path / "train.tsv").write_bytes("\ufeff".encode() + "\r\n".join(lines).encode())
    examples = glue_data.read_file(GLUE_TASKS[task], tmp_path / "train.tsv")
    assert [some[0] for some in examples.texts] == [text, "the sea"]
    assert examples.labels == ([1, 0] if GLUE_TASKS[task].labels else [4.0, 1.5])


@pytest.mark.parametrize("task", GLUE_TASKS)
def test_a_damaged_line_is_named(tmp_path: Path, task: str) -> None:
    path = tmp_path / "train.tsv"
    lines = lines_of(task, sentences(3))
    number = len(lines)
    for damaged, complaint in {
        lines[-1].rpartition("\t")[0]: r"has \d columns instead of \d",
        lines[-1] + "\tmore": r"has \d columns instead of \d",
        ROWS[task].format(index=0, first="a", second="b", label=""): "has the (label|score) ''",
        ROWS[task].format(index=0, first="a", second="b", label="nan"): "has the (label|score) 'nan'",
    }.items():
        path.write_text("\n".join([*lines[:-1], damaged]))
        assert re.fullmatch(rf"{re.escape(str(path))}, line {number} {complaint}.*; mend the line or take it out", refused(task, path))
    path.write_bytes("\n".join(lines[:-1]).encode() + b"\n\xff\xfe")
    assert f"line {number} is not valid UTF-8" in refused(task, path)


def test_files_that_are_not_the_task_s_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(HEADERS["rte"] + "\n")
    assert "holds no examples" in refused("rte", path)
    assert "has no column 'sentence' in its first line" in refused("sst2", path)
    path.write_text("")
    assert "has no column" in refused("rte", path) and "holds no examples" in refused("cola", path)
    with pytest.raises(UserError, match="has no dev.tsv; task=rte needs train.tsv, dev.tsv"):
        glue_data.read(GLUE_TASKS["rte"], str(tmp_path))
    with pytest.raises(UserError, match="holds no train.tsv, nor does RTE/ in it"):
        glue_data.read(GLUE_TASKS["rte"], str(tmp_path / "nowhere"))


def test_squad_s_files_are_read_and_checked(tmp_path: Path) -> None:
    folder = write_squad(tmp_path / "squad")
    train, evaluated = squad_data.read(str(folder))
    assert len(train) == 8 and len(evaluated) == 4
    assert all(asked.context[asked.starts[0] :].startswith("moon") for asked in train)
    text = (folder / "dev-v1.1.json").read_text()
    for damaged, complaint in {
        text.replace('"moon"', '"sea"', 1): "the answer 'sea' of question d0 is not at character",
        re.sub(r'\[\{"text.*?\]', "[]", text, count=1): "question d0 has no answer, as in SQuAD v2.0",
        text.replace("paragraphs", "pages"): r"is not in SQuAD's format \(KeyError: 'paragraphs'\)",
        text[:100]: "is not in SQuAD's format",
        '{"data": []}': "holds no questions",
    }.items():
        (folder / "dev-v1.1.json").write_text(damaged)
        with pytest.raises(UserError, match=complaint):
            squad_data.read(str(folder))
    (folder / "my-dev.json").write_text("")
    with pytest.raises(UserError, match=r"holds dev-v1.1.json, my-dev.json; leave one \*dev\*.json there"):
        squad_data.read(str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \*train\*.json"):
        squad_data.read(str(tmp_path / "empty"))


@pytest.mark.parametrize("task", GLUE_TASKS)
def test_the_hub_s_columns_are_the_files_ones(monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    """The data sets there: classes as numbers, in the order of ours."""
    asked = []

    def load(dataset: hub.HubDataset) -> dict[str, list]:
        asked.append((dataset.name, dataset.subset, dataset.split))
        return {**{name: ["x", "y"] for name in GLUE_TASKS[task].hub_texts}, "label": [1, 0], "idx": [0, 1]}

    monkeypatch.setattr(hub, "_load", load)
    train, evaluated = glue_data.read(GLUE_TASKS[task], None)
    assert train.labels == [1, 0] and train.texts[0] == ("x",) * len(GLUE_TASKS[task].hub_texts)
    splits = ["validation_matched", "validation_mismatched"] if task == "mnli" else ["validation"]
    assert asked == [("nyu-mll/glue", task, split) for split in ("train", *splits)] and len(evaluated) == len(splits)
    assert len(labels_of(GLUE_TASKS[task])) in (2, 3)


def test_squad_comes_from_the_hub_too(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"id": ["q"], "question": ["who?"], "context": ["a cat"], "answers": [{"text": ["cat"], "answer_start": [2]}]}
    monkeypatch.setattr(hub, "_load", lambda dataset: row)
    train, _ = squad_data.read(None)
    assert train == [squad_data.Question("q", "who?", "a cat", ("cat",), (2,))]


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(dataset: hub.HubDataset) -> None:
        raise ConnectionError("no route\nto the host")

    monkeypatch.setattr(hub, "_load", load)
    for read in (lambda: glue_data.read(GLUE_TASKS["rte"], None), lambda: squad_data.read(None)):
        with pytest.raises(UserError, match=r"^[^\n]* cannot be had from the hub \(no route\); give [^\n]*finetune.data_dir=[^\n]*$"):
            read()
