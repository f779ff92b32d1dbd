"""What a `results.json` records, as the tables take it: task, scores, and the settings that tell it from the others of its task."""

from collections.abc import Sequence
from typing import Any

from pretrain.report.comparison import shown

Content = dict[str, Any]
"""Of one `results.json`."""

_ALWAYS_SHOWN = ("task", "optimizer.name", "optimizer.lr", "finetune.from_scratch")
_HASHES = {
    "weights": ("model", "finetune.from_scratch"),
    "architecture": ("model", "finetune.dropout"),
    "tokenizer": ("model",),
    "data": ("finetune.max_train_examples",),
}
"""By what a hash is expected to differ: where it differs without, it has to be shown."""
_NONE = {"finetune.dropout": "as pretrained", "finetune.max_train_examples": "all"}


def task_of(content: Content) -> str:
    return content["made_from"]["task"]


def is_control(content: Content) -> bool:
    return content["made_from"]["finetune.from_scratch"]


def metrics_of(contents: Sequence[Content]) -> list[str]:
    """Names of the task's scores, the main one first; what a seed that diverged lacks, another one has."""
    records = (record for content in contents for record in content["seeds"].values())
    return list(next((record["scores"] for record in records if "scores" in record), {"score": None}))


def scores_of(content: Content, metric: str) -> list[float]:
    """Fractions, of the seeds that have one."""
    found = (record.get("scores", {}).get(metric) for record in content["seeds"].values())
    return [score for score in found if score is not None]


def num_diverged(content: Content) -> int:
    return sum("diverged" in record for record in content["seeds"].values())


def num_undefined(content: Content, metric: str) -> int:
    """Seeds that ended as they should, but whose score is not defined."""
    return sum("scores" in record and record["scores"].get(metric) is None for record in content["seeds"].values())


def differing(contents: Sequence[Content]) -> list[str]:
    """What has several values in `made_from` among these results of one task, but for what is shown always.

    An optimizer's own settings are compared with those of the same optimizer alone.
    """
    names = dict.fromkeys(name for content in contents for name in content["made_from"] if name not in _ALWAYS_SHOWN)
    return [name for name in names if _differs(name, contents)]


def label_of(content: Content, names: Sequence[str]) -> str:
    """One result in words; `names`: what differs in its task."""
    origin = content["made_from"]
    more = [f"{short(name)} {setting(content, name)}" for name in names if name in origin]
    return ", ".join([task_of(content), content["model"], f"{origin['optimizer.name']} lr {origin['optimizer.lr']:g}", *more])


def short(name: str) -> str:
    """`finetune.batch_size` -> `batch_size`."""
    part, _, last = name.rpartition(".")
    return part if last == "kind" else last


def setting(content: Content, name: str) -> str:
    """As people write it; `-` where there is none of that name."""
    origin = content["made_from"]
    if name not in origin:
        return "-"
    if name in _HASHES:
        return str(origin[name])[:8]
    return _NONE.get(name, "none") if origin[name] is None else shown(origin[name])


def _differs(name: str, contents: Sequence[Content]) -> bool:
    beside = ("optimizer.name",) if name.startswith("optimizer.") else _HASHES.get(name, ())
    values: dict[tuple[Any, ...], set[Any]] = {}
    for content in contents:
        facts = content["made_from"] | {"model": content["model"]}
        if name in facts:
            values.setdefault(tuple(facts.get(key) for key in beside), set()).add(facts[name])
    return any(len(found) > 1 for found in values.values())
