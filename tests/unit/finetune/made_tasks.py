"""Files of tasks, made up, whose answers a tiny model learns: class 1 where a moon is in the text, class 0 where there is a sea."""

import json
import random
from pathlib import Path

from pretrain.finetune.tasks import GLUE_TASKS, GlueTask

WORDS = "the cat sees and a dog runs to is blue".split()


def sentences(count: int, seed: int = 0) -> list[tuple[str, int]]:
    """(text, class) of so many short sentences."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        words = [rng.choice(WORDS) for _ in range(rng.randint(2, 8))]
        label = rng.randrange(2)
        words.insert(rng.randint(0, len(words)), ("sea", "moon")[label])
        made.append((" ".join(words), label))
    return made


HEADERS = {
    "sst2": "sentence\tlabel",
    "mrpc": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "rte": "index\tsentence1\tsentence2\tlabel",
    "cola": "",
    "stsb": "index\tgenre\tsentence1\tsentence2\tscore",
    "qnli": "index\tquestion\tsentence\tlabel",
    "mnli": "index\tpromptID\tsentence1\tsentence2\tlabel1\tgold_label",
}
ROWS = {
    "sst2": "{first}\t{label}",
    "mrpc": "{label}\t1\t2\t{first}\t{second}",
    "rte": "{index}\t{first}\t{second}\t{label}",
    "cola": "gj04\t{label}\t*\t{first}",
    "stsb": "{index}\tnews\t{first}\t{second}\t{label}",
    "qnli": "{index}\t{first}\t{second}\t{label}",
    "mnli": "{index}\t{index}n\t{first}\t{second}\tx\t{label}",
}


def labels_of(task: GlueTask) -> tuple[str, ...]:
    return task.labels or ("1.500", "4.0")


def lines_of(task: str, made: list[tuple[str, int]]) -> list[str]:
    """The file's lines for these sentences; the second sentence is always the same."""
    header = [HEADERS[task]] if HEADERS[task] else []
    labels = labels_of(GLUE_TASKS[task])
    return header + [
        ROWS[task].format(index=index, first=text, second="the cat runs", label=labels[label]) for index, (text, label) in enumerate(made)
    ]


def write_task(folder: Path, task: str, train: int = 64, dev: int = 32) -> Path:
    """A task's folder, with so many examples of each split."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.tsv").write_text("\n".join(lines_of(task, sentences(train))) + "\n")
    for seed, name in enumerate(GLUE_TASKS[task].eval_files.values(), start=1):
        (folder / name).write_text("\n".join(lines_of(task, sentences(dev, seed))) + "\n")
    return folder


def write_squad(folder: Path, train: int = 8, dev: int = 4, words: int = 40) -> Path:
    """SQuAD's two files: long texts, in each of which `moon` is once and is the answer."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    for name, count in (("train-v1.1.json", train), ("dev-v1.1.json", dev)):
        paragraphs = []
        for index in range(count):
            text = [rng.choice(WORDS) for _ in range(words)]
            text.insert(rng.randrange(words), "moon")
            context = " ".join(text)
            answers = [{"text": "moon", "answer_start": context.index("moon")}]
            asked = {"id": f"{name[0]}{index}", "question": "the cat sees the moon", "answers": answers}
            paragraphs.append({"context": context, "qas": [asked]})
        (folder / name).write_text(json.dumps({"version": "1.1", "data": [{"title": "made", "paragraphs": paragraphs}]}))
    return folder
