"""What the page knows, as plain values: runs, table, verdicts and the packed curves."""

import json
import time
from dataclasses import asdict
from typing import Any

from pretrain.report.comparison import differing, groups_of, of_mixed_data, settings_of, shared, shown
from pretrain.report.curves import Curve, curves_of, memory_parts
from pretrain.report.packing import knots, pack, stretches_within
from pretrain.report.run import AXES, Run, Track
from pretrain.report.scores import SCORES, targets
from pretrain.report.table import Column, columns
from pretrain.report.verdict import Verdict, verdicts

CHARACTERS = 2_800_000
"""For all of it; with the page's own files it stays below 3 MB."""


def page_data(runs: list[Run], target: float | None = None, x: str = "step") -> dict[str, Any]:
    """Plain values for JSON. `target`: the validation loss to reach, else the default of each objective."""
    groups = groups_of(runs)
    place = {id(run): number for number, group in enumerate(groups) for run in group.runs}
    kept = [column for column in columns(runs) if column.key != "objective.kind"]  # one objective is shown at a time
    curves = curves_of(runs)
    data = {
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "x": x,
        "columns": [{"key": column.key, "title": column.title, "told": column.told, "setting": column.is_setting} for column in kept],
        "curves": [_about(curve) for curve in curves],
        "scores": [{"name": score.name, "title": score.title, "lower": score.lower_is_better} for score in SCORES],
        "targets": targets(runs, target),
        "mixed": of_mixed_data(runs),
        "groups": [_group(verdict) for verdict in verdicts(groups)],
        "differing": _differing(runs),
        "shared": {name: shown(value) for name, value in shared(runs, _all_settings(runs)).items()},
        "runs": [_run(run, place[id(run)], kept) for run in runs],
    }
    room = CHARACTERS - len(json.dumps(data))
    present = [(values, curve.weight) for run in runs for curve in curves if (values := curve.values(run)) is not None]
    unit = stretches_within(room, present)
    for run, about in zip(runs, data["runs"], strict=True):
        about["series"] = {
            curve.key: pack(values, round(curve.weight * unit)) for curve in curves if (values := curve.values(run)) is not None
        }  # fmt: skip
    return data


def _about(curve: Curve) -> dict[str, Any]:
    return {"key": curve.key, "title": curve.title, "unit": curve.unit, "first": curve.is_shown_first}


def _run(run: Run, group: int, kept: list[Column]) -> dict[str, Any]:
    cells = [column.cell(run) for column in kept]
    return {
        "name": run.name,
        "group": group,
        "objective": run.objective,
        "state": run.state,
        "cells": [[value if isinstance(value, int | float) else text, text] for value, text in cells],
        "memory": memory_parts(run),
        "peak": run.train.largest("memory_peak_bytes"),
        "axes": {"train": _axes(run.train), "eval": _axes(run.evals)},
    }


def _axes(track: Track) -> dict[str, Any]:
    return {axis: found for axis in AXES if (found := knots(track.axes[axis]))}


def _group(verdict: Verdict) -> dict[str, Any]:
    return {
        "label": verdict.group.label,
        "objective": verdict.group.runs[0].objective,
        "losses": verdict.losses,
        "mean": verdict.mean,
        "spread": verdict.spread,
        "interval": asdict(verdict.difference) if verdict.difference else None,
        "baseline": verdict.baseline,
        "word": verdict.word,
    }


def _all_settings(runs: list[Run]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in settings_of(run)))


def _differing(runs: list[Run]) -> list[dict[str, Any]]:
    """Each setting with its values, by run."""
    names = differing(runs)
    return [
        {"name": name, "values": [shown(settings[name]) if name in settings else None for settings in map(settings_of, runs)]}
        for name in names
    ]
