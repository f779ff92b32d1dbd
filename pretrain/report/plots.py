"""Plots for papers: one PNG or SVG file per curve, with matplotlib (`pip install came-pretrain[plots]`)."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pretrain.errors import UserError
from pretrain.report.comparison import Group, groups_of
from pretrain.report.curves import Curve, curves_of
from pretrain.report.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito (2008), without yellow."""
_DASHES = ("-", "--", ":", "-.", (0, (8, 2)), (0, (4, 1, 1, 1, 1, 1)), (0, (1, 4)), (0, (10, 2, 4, 2)))
_AXIS_TITLES = {"step": "step", "tokens": "tokens", "wall_seconds": "wall time (hours)"}
_UNITS = {"bytes": ("GiB", 2**30), "share": ("%", 0.01), "seconds": ("seconds", 1.0)}
_SECONDS_PER_HOUR = 3600.0


def write_plots(runs: list[Run], folder: Path, suffix: str, x: str = "step") -> list[Path]:
    """One file per curve that the page shows first, into `folder`; runs that differ in the seed alone are a mean with a band from the
    lowest to the highest. Runs of several objectives go into files of their own. Raises UserError without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise UserError("plots need matplotlib; pip install came-pretrain[plots], or give --format html") from error
    matplotlib.use("agg")
    matplotlib.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "pretrain", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    objectives = list(dict.fromkeys(run.objective for run in runs))
    written = []
    for objective in objectives:
        members = [run for run in runs if run.objective == objective]
        for curve in curves_of(members):
            if curve.is_shown_first:
                stem = curve.key.replace("/", "_") + (f"_{objective}" if len(objectives) > 1 else "")
                written.append(_write(curve, members, folder / f"{stem}.{suffix}", x))
    return written


def _write(curve: Curve, runs: list[Run], path: Path, x: str) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    axes = figure.subplots()
    unit, size = _UNITS.get(curve.unit, (curve.unit, 1.0))
    for number, group in enumerate(groups_of(runs)):
        _draw(axes, curve, group, x, size, _COLOURS[number % len(_COLOURS)], _DASHES[number // len(_COLOURS) % len(_DASHES)])
    axes.set_xlabel(_AXIS_TITLES[x])
    axes.set_ylabel(curve.title + (f" ({unit})" if unit else ""))
    axes.grid(alpha=0.25, linewidth=0.5)
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def _draw(axes: "Axes", curve: Curve, group: Group, x: str, size: float, colour: str, dash: object) -> None:
    drawn = list(_points(curve, group, x))
    if not drawn:
        return
    label = group.label if len(drawn) == 1 else f"{group.label}, {len(drawn)} seeds"
    at, values = drawn[0]
    if len(drawn) > 1:
        begin, end = max(places[0] for places, _ in drawn), min(places[-1] for places, _ in drawn)
        fewest = min((places for places, _ in drawn), key=len)
        at = fewest[(fewest >= begin) & (fewest <= end)]
        every = np.stack([np.interp(at, places, known) for places, known in drawn])
        values = every.mean(axis=0)
        axes.fill_between(at, every.min(axis=0) / size, every.max(axis=0) / size, color=colour, alpha=0.2, linewidth=0)
    axes.plot(at, values / size, color=colour, linestyle=dash, linewidth=1.3, label=_plain(label))


def _points(curve: Curve, group: Group, x: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for run in group.runs:
        values = curve.values(run)
        if values is None:
            continue
        at = (run.evals if curve.kind == "eval" else run.train).axes[x]
        known = np.isfinite(values) & np.isfinite(at)
        if known.any():
            yield at[known] / (_SECONDS_PER_HOUR if x == "wall_seconds" else 1.0), values[known]


def _plain(label: str) -> str:
    """Text, not mathematics, and never hidden, whatever the run is called."""
    return ("\u200b" + label if label.startswith("_") else label).replace("$", r"\$")
