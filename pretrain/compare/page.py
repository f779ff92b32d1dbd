"""The page of a comparison: one HTML file with its table and its plot, which loads nothing and runs nothing."""

import html
import re
from collections.abc import Iterable
from pathlib import Path

from pretrain.compare.plot import as_svg
from pretrain.compare.summary import Summary
from pretrain.compare.table import main_cells, rate_cells

_WORDS = ("better", "worse", "diverged")


def render(summary: Summary) -> str:
    """The whole file."""
    titles, rows, left = main_cells(summary)
    states = ["reference" if row.is_baseline else "" for row in summary.rows]
    first, *rates = rate_cells(summary)
    filled = {
        "title": html.escape(f"Comparison: {summary.title}"),
        "head": _listed(summary.head),
        "table": _table(titles, rows, left, states),
        "plot": as_svg(summary),
        "rates": _table(first, rates, [True, True], [""] * len(rates)),
        "notes": _listed(summary.notes),
        "folder": html.escape(" ".join(map(str, summary.folders))),
    }
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda place: filled[place[1]], template)


def _table(titles: list[str], rows: list[list[str]], left: list[bool], classes: list[str]) -> str:
    head = "".join(f"<th{_side(is_left)}>{html.escape(title)}</th>" for title, is_left in zip(titles, left, strict=True))
    lines = [f'<tr class="{name}">{"".join(map(_cell, row, left))}</tr>' for row, name in zip(rows, classes, strict=True)]
    return f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"


def _cell(text: str, is_left: bool) -> str:
    word = text.partition(" ")[0]
    marked = f'<span class="{word}">{html.escape(text)}</span>' if word in _WORDS else html.escape(text)
    return f"<td{_side(is_left)}>{marked}</td>"


def _side(is_left: bool) -> str:
    return ' class="left"' if is_left else ""


def _listed(lines: Iterable[str]) -> str:
    return "".join(f"<li{' class=unequal' if line.startswith('NOT ') else ''}>{html.escape(line)}</li>" for line in lines)
