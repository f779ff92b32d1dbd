"""What differs between runs, and which of them are one experiment with several seeds."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pretrain.report.run import Run

SEED = "run.seed"
_BOOKKEEPING = {"run.name", "run.dir", "run.resume", "run.dry_run", "run.export", "data.cache_dir"}
_BOOKKEEPING_PARTS = ("tracker.", "checkpoint.", "launch.")
_WHERE_THE_TEXT_LIES = {"data.paths", "data.valid_paths", "data.path"}
"""The fingerprint of the prepared data says whether it is the same text."""
PROVENANCE = ("versions.", "git.", "device", "data_fingerprint", "init_from")
"""Beginnings of the names of what a run was made with; `ranks` is a setting like the others."""
_DOES_NOT_PART_SEEDS = ("versions.", "git.", "device")
_NAMED_BY_VALUE = ("optimizer.name", "model.name")


def settings_of(run: Run) -> dict[str, Any]:
    """What the numbers of a run, its time and its memory follow from: without names, folders and trackers, with the ranks."""
    kept = {
        name: value for name, value in run.settings.items() if name not in _BOOKKEEPING and not name.startswith(_BOOKKEEPING_PARTS)
    }  # fmt: skip
    if "data_fingerprint" in run.made_with:
        kept = {name: value for name, value in kept.items() if name not in _WHERE_THE_TEXT_LIES}
    return kept | run.made_with


def differing(runs: Iterable[Run]) -> list[str]:
    """The settings that have several values among those runs that have them: AdamW's lack of a beta3 is no difference of beta3."""
    values: dict[str, set[str]] = {}
    for run in runs:
        for name, value in settings_of(run).items():
            values.setdefault(name, set()).add(str(value))
    return sorted((name for name, found in values.items() if len(found) > 1), key=_importance)


def distinguishing(runs: list[Run]) -> list[str]:
    """Of the settings that differ, as few as tell the runs apart (but for their seeds), the most telling first."""
    kept: list[str] = []
    apart = 1
    for name in differing(runs):
        if name != SEED and not name.startswith(PROVENANCE):
            found = len({tuple(str(settings_of(run).get(each)) for each in (*kept, name)) for run in runs})
            kept, apart = ([*kept, name], found) if found > apart else (kept, apart)
    return kept


def shared(runs: list[Run], names: Iterable[str]) -> dict[str, Any]:
    """Of `names` those that have one value in all runs."""
    all_settings = [settings_of(run) for run in runs]
    found = {name: {str(settings.get(name)) for settings in all_settings} for name in names}
    return {name: all_settings[0][name] for name, values in found.items() if len(values) == 1 and all_settings[0].get(name) is not None}


def of_mixed_data(runs: list[Run]) -> list[str]:
    """The objectives whose runs saw different prepared data: other validation text or another vocabulary, so other scales of loss."""
    seen = {(run.objective, run.made_with["data_fingerprint"]) for run in runs if "data_fingerprint" in run.made_with}
    return [name for name, times in Counter(objective for objective, _ in seen).items() if times > 1]


@dataclass(frozen=True)
class Group:
    """Runs that differ in `run.seed` alone; each run is in one group."""

    label: str
    runs: tuple[Run, ...]


def groups_of(runs: list[Run]) -> list[Group]:
    """In the order of their first runs. A run whose settings are not known is alone. What a run was made with does not part two seeds."""
    members: dict[tuple, list[Run]] = {}
    for run in runs:
        known = {name: value for name, value in settings_of(run).items() if name != SEED and not name.startswith(_DOES_NOT_PART_SEEDS)}
        key = tuple(sorted((name, str(value)) for name, value in known.items())) if run.settings else (run.name,)
        members.setdefault((run.objective, key), []).append(run)
    groups = list(members.values())
    firsts = [group[0] for group in groups]
    names = {one.objective: distinguishing([run for run in firsts if run.objective == one.objective]) for one in firsts}
    labels = [_label(group, names[group[0].objective]) for group in groups]
    return [
        Group(label if labels.count(label) == 1 else f"{label} ({group[0].name})", tuple(group))
        for label, group in zip(labels, groups, strict=True)
    ]


def _label(group: list[Run], names: list[str]) -> str:
    """A lone run has its own name; several are called by what sets them apart from the others."""
    if len(group) == 1:
        return group[0].name
    settings = settings_of(group[0])
    parts = [
        str(settings[name]) if name in _NAMED_BY_VALUE else f"{name.rpartition('.')[2]} {shown(settings[name])}"
        for name in names
        if settings.get(name) is not None
    ]
    return ", ".join(parts) or group[0].name


def shown(value: Any) -> str:
    """A setting as people write it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def by_value(values: Mapping[str, str]) -> dict[str, list[str]]:
    """Value -> those that have it."""
    found: dict[str, list[str]] = {}
    for name, value in values.items():
        found.setdefault(value, []).append(name)
    return found


def unequal(what: str, found: Mapping[str, Sequence[str]]) -> list[str]:
    """A line that says which have which value (see `by_value`); none where all have the same."""
    if len(found) < 2:
        return []
    return [f"NOT equal: {what} is " + ", ".join(f"{value} for {' and '.join(names)}" for value, names in found.items())]


_FIRST = ("optimizer.name", "optimizer.lr", "model.name", "objective.kind", SEED, "ranks", "zero.stage", "train.num_steps")


def _importance(name: str) -> tuple[int, str]:
    if name in _FIRST:
        return _FIRST.index(name), name
    return len(_FIRST) + name.startswith(PROVENANCE), name
