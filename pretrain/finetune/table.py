"""Fine-tunings as tables: the seeds of one, and several beside each other with their differences to the control."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from pretrain.errors import UserError
from pretrain.finetune import gains, results
from pretrain.finetune.recorded import (
    Content,
    differing,
    is_control,
    label_of,
    metrics_of,
    num_diverged,
    num_undefined,
    scores_of,
    setting,
    short,
    task_of,
)
from pretrain.report import cells
from pretrain.report.comparison import by_value, shown, unequal
from pretrain.report.run import flat

_REMARK = "Scores are times 100, on the validation set after the last epoch: no epoch is chosen by them."
_CORRELATIONS = ("matthews", "pearson", "spearman")
_LEFT = 4
"""Columns of words, to the left."""
_IN_EPOCHS = ("finetune.num_epochs", "finetune.max_steps")


def of_seeds(content: Content) -> str:
    """The scores of each seed, their mean and their standard deviation."""
    names = metrics_of([content])
    rows = [["seed", *names]]
    for seed, record in content["seeds"].items():
        rows.append([seed, *([_score(record["scores"].get(name)) for name in names] if "scores" in record else ["diverged"] * len(names))])
    if len(content["seeds"]) > 1:
        scores = [scores_of(content, name) for name in names]
        rows.append(["mean", *(_score(statistics.fmean(some) if some else None) for some in scores)])
        rows.append(["std", *(_score(statistics.stdev(some) if len(some) > 1 else None) for some in scores)])
    return "\n".join(cells.aligned(rows, _left(rows, 1)))


def remarks(contents: Sequence[Content]) -> list[str]:
    """What has to be known of all the scores."""
    metrics = {name for content in contents for name in metrics_of([content])}
    correlations = [name for name in _CORRELATIONS if name in metrics]
    constant = f"Of a model whose predictions are all the same the {' and '.join(correlations)} score is 0."
    return [_REMARK, *([constant] if correlations else []), *(line for content in contents for line in _unlike_seeds(content))]


def _unlike_seeds(content: Content) -> list[str]:
    """What the seeds of one fine-tuning were not all made with."""
    made = {f"seed {seed}": dict(flat(record.get("made_with") or {})) for seed, record in content["seeds"].items()}
    names = dict.fromkeys(name for facts in made.values() for name in facts)
    found = {name: by_value({seed: shown(facts[name]) for seed, facts in made.items() if name in facts}) for name in names}
    return [line for name, values in found.items() for line in unequal(f"in {label_of(content, ())}, {name}", values)]


def read_all(folders: Iterable[Path]) -> list[Content]:
    """All results in these folders and below them. Raises UserError where there are none."""
    found: dict[Path, Content] = {}
    for folder in folders:
        paths = sorted(folder.rglob(results.NAME)) if folder.is_dir() else []
        if not paths:
            raise UserError(f"there is no {results.NAME} in {folder}; give a folder in which a fine-tuning has finished a seed")
        found |= {path.resolve(): results.read(path) for path in paths}
    return list(found.values())


def as_text(contents: Sequence[Content]) -> str:
    """For a terminal."""
    blocks = [cells.aligned(rows, _left(rows, _LEFT)) for rows in _tables(contents)]
    return "\n\n".join("\n".join(block) for block in (*blocks, list(map(cells.printable, _notes(contents)))))


def as_markdown(contents: Sequence[Content]) -> str:
    blocks = [cells.markdown(rows, _left(rows, _LEFT)) for rows in _tables(contents)]
    return "\n\n".join("\n".join(block) for block in (*blocks, [f"- {cells.escaped(note)}" for note in _notes(contents)]))


def _notes(contents: Sequence[Content]) -> list[str]:
    found = gains.gains(contents)
    return [*found, *([gains.REMARK] if found else []), *remarks(contents)]


def _tables(contents: Sequence[Content]) -> list[list[list[str]]]:
    """One for each task, as the tasks have different metrics; the best first, with the settings that differ."""
    tables = []
    for task in dict.fromkeys(map(task_of, contents)):
        some = [content for content in contents if task_of(content) == task]
        names, settings = metrics_of(some), [name for name in differing(some) if name not in _IN_EPOCHS]
        some.sort(key=lambda content: -statistics.fmean(scores_of(content, names[0]) or [-1.0]))
        rows = [["task", "model", "optimizer", "start", "lr", "epochs", *map(short, settings), "seeds", *names]]
        for content in some:
            origin = content["made_from"]
            start = "random" if is_control(content) else "pretrained"
            about = [task, content["model"], origin["optimizer.name"], start, f"{origin['optimizer.lr']:g}", _epochs(content)]
            told = [setting(content, name) for name in settings]
            rows.append([*about, *told, _num_seeds(content), *(_mean_and_std(content, name) for name in names)])
        tables.append(rows)
    return tables


def _epochs(content: Content) -> str:
    epochs, most = (content["made_from"][name] for name in _IN_EPOCHS)
    return str(epochs) if most is None else f"{epochs}, at most {most} steps"


def _num_seeds(content: Content) -> str:
    diverged = num_diverged(content)
    return f"{len(content['seeds'])}" + (f" ({diverged} diverged)" if diverged else "")


def _mean_and_std(content: Content, name: str) -> str:
    scores, undefined = scores_of(content, name), num_undefined(content, name)
    spread = f" +- {100 * statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    return _score(statistics.fmean(scores) if scores else None) + spread + (f" ({undefined} undefined)" if undefined else "")


def _score(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _left(rows: Sequence[Sequence[str]], count: int) -> list[bool]:
    """The first `count` columns stand to the left."""
    return [place < count for place in range(len(rows[0]))]
