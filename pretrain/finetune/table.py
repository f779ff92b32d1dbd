"""Fine-tunings as tables: the seeds of one, and several beside each other with their differences to the control."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pretrain.errors import UserError
from pretrain.finetune import results
from pretrain.report.significance import difference

REMARK = "Scores are times 100, on the validation set after the last epoch: no epoch is chosen by them."
_LEFT = 4
"""Columns of words, to the left."""


def of_seeds(content: dict[str, Any]) -> str:
    """The scores of each seed, their mean and their standard deviation."""
    names = _metrics([content])
    rows = [["seed", *names]]
    for seed, record in content["seeds"].items():
        rows.append([seed, *([_score(record["scores"].get(name)) for name in names] if "scores" in record else ["diverged"] * len(names))])
    if len(content["seeds"]) > 1:
        scores = [_scores(content, name) for name in names]
        rows.append(["mean", *(_score(statistics.fmean(some) if some else None) for some in scores)])
        rows.append(["std", *(_score(statistics.stdev(some) if len(some) > 1 else None) for some in scores)])
    return _aligned(rows, left=1)


def read_all(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """All results in these folders and below them. Raises UserError where there are none."""
    found: dict[Path, dict[str, Any]] = {}
    for folder in folders:
        paths = sorted(folder.rglob(results.NAME)) if folder.is_dir() else []
        if not paths:
            raise UserError(f"there is no {results.NAME} in {folder}; give a folder in which a fine-tuning has finished a seed")
        found |= {path.resolve(): results.read(path) for path in paths}
    return list(found.values())


def as_text(contents: Sequence[dict[str, Any]]) -> str:
    """For a terminal."""
    return "\n\n".join(["\n\n".join(_aligned(rows, _LEFT) for rows in _tables(contents)), "\n".join([*_differences(contents), REMARK])])


def as_markdown(contents: Sequence[dict[str, Any]]) -> str:
    blocks = []
    for head, *body in _tables(contents):
        rule = [":--" if place < _LEFT else "--:" for place in range(len(head))]
        blocks.append("\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, rule, *body)))
    return "\n\n".join([*blocks, *(f"- {line}" for line in _differences(contents)), REMARK])


def _tables(contents: Sequence[dict[str, Any]]) -> list[list[list[str]]]:
    """One for each task, as the tasks have different metrics; the best first."""
    tables = []
    for task in dict.fromkeys(_task(content) for content in contents):
        some = [content for content in contents if _task(content) == task]
        names = _metrics(some)
        some.sort(key=lambda content: -statistics.fmean(_scores(content, names[0]) or [-1.0]))
        rows = [["task", "model", "optimizer", "start", "lr", "epochs", "seeds", *names]]
        for content in some:
            origin = content["made_from"]
            epochs = str(origin["finetune.num_epochs"]) if origin["finetune.max_steps"] is None else f"{origin['finetune.max_steps']} steps"
            start = "random" if _is_control(content) else "pretrained"
            about = [task, content["model"], origin["optimizer.name"], start, f"{origin['optimizer.lr']:g}", epochs]
            rows.append([*about, _num_seeds(content), *(_mean_and_std(content, name) for name in names)])
        tables.append(rows)
    return tables


def _differences(contents: Sequence[dict[str, Any]]) -> list[str]:
    """What pretraining brings: each model against its control, of the same settings if there is one, else of other optimizers or rates."""
    lines = []
    for content in contents:
        if _is_control(content):
            continue
        kin = [other for other in contents if _is_control(other) and _same(content, other, ("task", "architecture", "vocabulary", "data"))]
        twins = [other for other in kin if _same(content, other, [key for key in content["made_from"] if key not in _BEGINNING])]
        for control in twins or kin:
            lines += [line for name in _metrics([content])[:1] if (line := _difference(content, control, name))]
    return lines


_BEGINNING = ("weights", "finetune.from_scratch")


def _difference(content: dict[str, Any], control: dict[str, Any], name: str) -> str | None:
    first, second = _scores(content, name), _scores(control, name)
    if not (first and second):
        return None
    found = difference([100 * score for score in first], [100 * score for score in second])
    said = f"{_label(content)}: {found.mean:+.2f} {name} over random weights ({_label(control)})"
    if found.low is None or found.high is None:
        return f"{said}; with a single seed there is no interval"
    return f"{said}, 95 % interval {found.low:+.2f} to {found.high:+.2f} (Welch, {len(first)} and {len(second)} seeds)"


def _label(content: dict[str, Any]) -> str:
    origin = content["made_from"]
    return f"{_task(content)}, {content['model']}, {origin['optimizer.name']} lr {origin['optimizer.lr']:g}"


def _same(first: dict[str, Any], second: dict[str, Any], keys: Iterable[str]) -> bool:
    return all(first["made_from"].get(key) == second["made_from"].get(key) for key in keys)


def _is_control(content: dict[str, Any]) -> bool:
    return content["made_from"]["finetune.from_scratch"]


def _task(content: dict[str, Any]) -> str:
    return content["made_from"]["task"]


def _metrics(contents: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the task's scores, the main one first; what a seed that diverged lacks, another one has."""
    records = (record for content in contents for record in content["seeds"].values())
    return list(next((record["scores"] for record in records if "scores" in record), {"score": None}))


def _scores(content: dict[str, Any], name: str) -> list[float]:
    """Of the seeds that have one."""
    found = (record.get("scores", {}).get(name) for record in content["seeds"].values())
    return [score for score in found if score is not None]


def _num_seeds(content: dict[str, Any]) -> str:
    diverged = sum("diverged" in record for record in content["seeds"].values())
    return f"{len(content['seeds'])}" + (f" ({diverged} diverged)" if diverged else "")


def _mean_and_std(content: dict[str, Any], name: str) -> str:
    scores = _scores(content, name)
    spread = f" +- {100 * statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    undefined = sum("scores" in record and record["scores"].get(name) is None for record in content["seeds"].values())
    return _score(statistics.fmean(scores) if scores else None) + spread + (f" ({undefined} undefined)" if undefined else "")


def _score(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _aligned(rows: list[list[str]], left: int) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) if place < left else cell.rjust(width) for place, (cell, width) in enumerate(zip(row, widths))).rstrip()
        for row in rows
    )
