"""The plot of a comparison: final validation loss against learning rate, a curve for each optimizer, as SVG that needs nothing else."""

import html
import math

import numpy as np

from pretrain.compare.rows import Row
from pretrain.compare.summary import Summary

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#444444", "#8c510a")
"""After Okabe and Ito (2008), the yellow darkened."""
_SHAPES = ("circle", "square", "diamond", "triangle")
_WIDTH, _HEIGHT = 860, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 190, 24, 56
_LEGEND_ROW = 40


def as_svg(summary: Summary) -> str:
    """Each point is a run with the first seed; the best rate of each has its mean over the seeds with the standard deviation beside it.

    At the upper edge a cross is a rate that diverged, an arrow a loss far above those near the best rates.
    """
    rows = [row for row in summary.rows if row.found.scores]
    if not any(score is not None for row in rows for score in row.found.scores.values()):
        return _document([f'<text x="{_WIDTH / 2}" y="{_HEIGHT / 2}" text-anchor="middle">no run has come to its end</text>'], "")
    scale = _Scale([rate for row in rows for rate in row.found.scores], _worth_seeing(rows))
    parts = [*scale.grid(), *scale.titles()]
    for number, row in enumerate(rows):
        parts += _curve(row, scale, _COLOURS[number % len(_COLOURS)], _SHAPES[number // len(_COLOURS) % len(_SHAPES)])
        parts += _legend(row, number)
    return _document(parts, ", ".join(row.variant for row in rows))


def _worth_seeing(rows: list[Row]) -> list[float]:
    """The losses that the plot has to hold: of each best rate, its seeds and its neighbours. Far worse ones may lie above it."""
    found: list[float] = []
    for row in rows:
        known = [(rate, score) for rate, score in row.found.scores.items() if score is not None]
        place = next((place for place, (rate, _) in enumerate(known) if rate == row.found.best), 0)
        found += [score for _, score in known[max(0, place - 1) : place + 2]] + row.losses
    return found


class _Scale:
    """From rates and losses to places: logarithmic across, plain upwards."""

    def __init__(self, rates: list[float], losses: list[float]) -> None:
        self.low_rate, self.high_rate = min(rates) / 1.5, max(rates) * 1.5
        room = max(max(losses) - min(losses), 0.01) * 0.06
        self.low, self.high = min(losses) - room, max(losses) + room

    def x(self, rate: float) -> float:
        share = math.log(rate / self.low_rate) / math.log(self.high_rate / self.low_rate)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, loss: float) -> float:
        share = (min(loss, self.high) - self.low) / (self.high - self.low)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    def is_above(self, loss: float) -> bool:
        return loss > self.high

    def grid(self) -> list[str]:
        parts = []
        digits = (1, 2, 5) if self.high_rate / self.low_rate < 300 else (1,)
        for exponent in range(math.floor(math.log10(self.low_rate)), math.ceil(math.log10(self.high_rate)) + 1):
            for digit in digits:
                rate = digit * 10.0**exponent
                if self.low_rate <= rate <= self.high_rate:
                    x = self.x(rate)
                    parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
                    parts.append(f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{rate:g}</text>')
        for loss in _ticks(self.low, self.high):
            y = self.y(loss)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
            parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{loss:g}</text>')
        return parts

    def titles(self) -> list[str]:
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        upright = (_TOP + _HEIGHT - _BOTTOM) / 2
        return [
            f'<text class="title" x="{middle}" y="{_HEIGHT - 12}" text-anchor="middle">peak learning rate</text>',
            f'<text class="title" transform="translate(18 {upright}) rotate(-90)" text-anchor="middle">final validation loss (nats)</text>',
        ]


def _ticks(low: float, high: float) -> list[float]:
    """Some five round numbers between the two."""
    rough = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * digit for digit in (1, 2, 5, 10) if size * digit >= rough)
    return [round(number * step, 10) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _curve(row: Row, scale: _Scale, colour: str, shape: str) -> list[str]:
    known = [(rate, score) for rate, score in row.found.scores.items() if score is not None]
    seen = [not scale.is_above(score) for _, score in known]
    drawn = [pair for place, pair in enumerate(known) if any(seen[max(0, place - 1) : place + 2])]  # up to the edge, not along it
    points = " ".join(f"{scale.x(rate)},{scale.y(score)}" for rate, score in drawn)
    parts = [f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>'] if len(drawn) > 1 else []
    for rate, score in row.found.scores.items():
        told = f"{row.variant}, lr {rate:g}: " + ("diverged" if score is None else f"{score:.4f}")
        form = "cross" if score is None else "arrow" if scale.is_above(score) else shape
        mark = _mark(form, scale.x(rate), scale.y(math.inf if score is None else score), colour)
        parts.append(f"<g><title>{html.escape(told)}</title>{mark}</g>")
    if row.found.best is not None and row.losses:
        parts += _seeds(row, scale, colour)
    return parts


def _seeds(row: Row, scale: _Scale, colour: str) -> list[str]:
    """Mean over the seeds at the best rate, a ring around it, and a standard deviation to either side."""
    x, mean = scale.x(row.found.best), float(np.mean(row.losses))
    ring = f'<circle cx="{x}" cy="{scale.y(mean)}" r="8" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    if len(row.losses) < 2:
        return [ring]
    deviation = float(np.std(row.losses, ddof=1))
    low, high = scale.y(max(mean - deviation, scale.low)), scale.y(mean + deviation)
    return [ring, f'<path d="M{x} {low}V{high}M{x - 5} {low}h10M{x - 5} {high}h10" stroke="{colour}" stroke-width="1.5" fill="none"/>']


def _mark(shape: str, x: float, y: float, colour: str) -> str:
    if shape == "circle":
        return f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"/>'
    if shape == "cross":
        return f'<path d="M{x - 5} {y - 5}l10 10m0 -10l-10 10" stroke="{colour}" stroke-width="2" fill="none"/>'
    paths = {
        "arrow": f"M{x} {y - 8}l4 7h-8z",
        "square": f"M{x - 4} {y - 4}h8v8h-8z",
        "diamond": f"M{x} {y - 5.5}l5.5 5.5l-5.5 5.5l-5.5 -5.5z",
        "triangle": f"M{x} {y - 5}l5 9h-10z",
    }
    return f'<path d="{paths[shape]}" fill="{colour}"/>'


def _legend(row: Row, number: int) -> list[str]:
    """Name, best rate and loss, in the order of the table."""
    x, y = _WIDTH - _RIGHT + 20, _TOP + 12 + number * _LEGEND_ROW
    colour, shape = _COLOURS[number % len(_COLOURS)], _SHAPES[number // len(_COLOURS) % len(_SHAPES)]
    best = "diverged" if row.found.best is None else f"{row.found.best:g}: {np.mean(row.losses):.4f}" if row.losses else "not finished"
    return [
        _mark(shape, x, y - 4, colour),
        f'<text class="name" x="{x + 12}" y="{y}">{html.escape(row.variant)}</text>',
        f'<text x="{x + 12}" y="{y + 15}">{best}</text>',
    ]


def _document(parts: list[str], names: str) -> str:
    legend = _TOP + 12 + (names.count(",") + 1) * _LEGEND_ROW
    height = max(_HEIGHT, legend)
    style = "text{font:12px system-ui,sans-serif;fill:#333}.title,.name{font-size:13px;fill:#111}.grid{stroke:#ddd;stroke-width:1}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="final validation loss against learning rate: {html.escape(names, quote=True)}">'
        f'<style>{style}</style><rect width="{_WIDTH}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )
