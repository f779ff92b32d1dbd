"""The table of a comparison: for the terminal, as Markdown, as CSV; and the cells that the page shows."""

import csv
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from pretrain.compare.rows import Row
from pretrain.compare.summary import Summary
from pretrain.report import cells
from pretrain.report.scores import ACCURACY, PERPLEXITY
from pretrain.report.table import bytes_text

Cell = Callable[[Row], str]


def as_text(summary: Summary) -> str:
    """Head, table, the loss at every rate, notes."""
    head, rows, left = main_cells(summary)
    rates = rate_cells(summary)
    blocks = [summary.head, cells.aligned([head, *rows], left), cells.aligned(rates, [True] * len(rates[0])), summary.notes]
    return "\n\n".join("\n".join(map(cells.printable, block)) for block in blocks if block)


def as_markdown(summary: Summary) -> str:
    head, rows, left = main_cells(summary)
    rates = rate_cells(summary)
    said = [[f"- {cells.escaped(line)}" for line in lines] for lines in (summary.head, summary.notes)]
    tables = [cells.markdown([head, *rows], left), cells.markdown(rates, [True] * len(rates[0]))]
    return "\n\n".join("\n".join(block) for block in (said[0], tables[0], tables[1], said[1]) if block)


def as_csv(summary: Summary) -> str:
    """One row per variant, plain values: nats, bytes, seconds, full precision; a list's values are parted by spaces."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(["baseline", *_PLAIN])
    for row in summary.rows:
        writer.writerow([summary.baseline, *("" if value is None else value for value in (find(row) for find in _PLAIN.values()))])
    return output.getvalue().rstrip("\n")


def main_cells(summary: Summary) -> tuple[list[str], list[list[str]], list[bool]]:
    """(titles, a row of cells per variant, which columns stand to the left); without the columns that nobody has a value for."""
    titles: dict[str, Cell] = {
        "optimizer": lambda row: row.variant,
        "best lr": _best_rate,
        "validation loss": lambda row: spread(row.losses, "{:.4f}") + _of_all(len(row.losses), row),
        _SCORES[summary.score][0]: lambda row: _SCORES[summary.score][1](row.finals(summary.score)),
        f"against {summary.baseline}": _against,
        "p": lambda row: "-" if row.p is None else f"{row.p:.2g}",
        "verdict": lambda row: row.word,
        "steps": _steps,
        "tokens": _tokens,
        "time/step": lambda row: "-" if (seconds := row.median("step_seconds")) is None else f"{1000 * seconds:,.0f} ms",
        "state": lambda row: _bytes(row.largest("memory_optimizer_bytes")),
        "peak": lambda row: _bytes(row.largest("memory_peak_bytes")),
        "diverged at": lambda row: ", ".join(f"{rate:g}" for rate in row.diverged_rates) or "-",
    }
    columns = {title: [cell(row) for row in summary.rows] for title, cell in titles.items()}
    kept = {title: column for title, column in columns.items() if title == "optimizer" or any(cell != "-" for cell in column)}
    return list(kept), [list(row) for row in zip(*kept.values(), strict=True)], [title in ("optimizer", "verdict") for title in kept]


def rate_cells(summary: Summary) -> list[list[str]]:
    """Every rate that was tried with its final validation loss, by the first seed; the best in brackets."""
    rows = [["optimizer", "learning rate: validation loss at the end of the schedule, first seed"]]
    for row in summary.rows:
        shown = []
        for rate, score in row.found.scores.items():
            text = f"{rate:g}: " + ("diverged" if score is None else f"{score:.4f}")
            shown.append(f"[{text}]" if rate == row.found.best else text)
        rows.append([row.variant, "  ".join(shown)])
    return rows


def spread(values: list[float], form: str, scale: float = 1.0, unit: str = "") -> str:
    """Mean and standard deviation; of a single value that alone."""
    if not values:
        return "-"
    scaled = [scale * value for value in values]
    deviation = f" +- {form.format(np.std(scaled, ddof=1))}" if len(scaled) > 1 else ""
    return f"{form.format(np.mean(scaled))}{deviation}{unit}"


_SCORES: dict[str, tuple[str, Callable[[list[float]], str]]] = {
    ACCURACY.name: ("MLM accuracy", lambda values: spread(values, "{:.2f}", 100.0, " %")),
    PERPLEXITY.name: ("perplexity", lambda values: spread(values, "{:,.2f}")),
}


def _against(row: Row) -> str:
    if row.against is None:
        return "-"
    text = f"{row.against.mean:+.4f}"
    return text if row.against.low is None else f"{text} [{row.against.low:+.4f}, {row.against.high:+.4f}]"


def _best_rate(row: Row) -> str:
    if row.found.best is None:
        return "-"
    return f"{row.found.best:g}" + (" (so far)" if row.found.wanted else " (edge)" if row.found.at_edge else "")


def _of_all(number: int, row: Row) -> str:
    return f" ({number} of {row.seeds} seeds)" if 0 < number < row.seeds else ""


def _steps(row: Row) -> str:
    if row.target is None or not row.losses:
        return "-"
    reached = row.steps_to_target
    if len(reached) < row.seeds:
        return f"{len(reached)} of {row.seeds} seeds" if reached else "never"
    return f"{np.mean(reached):,.0f}"


def _tokens(row: Row) -> str:
    return f"{tokens / 1e6:,.2f} M" if (tokens := tokens_to_target(row)) is not None else "-"


def steps_to_target(row: Row) -> float | None:
    """Mean over the seeds; None unless all of them reached it."""
    reached = row.steps_to_target
    return float(np.mean(reached)) if reached and len(reached) == row.seeds else None


def tokens_to_target(row: Row) -> float | None:
    """Likewise."""
    if (steps := steps_to_target(row)) is None:
        return None
    axes = row.outcomes[0].run.evals.axes
    return steps * float(axes["tokens"][-1] / axes["step"][-1])


def _bytes(value: float | None) -> str:
    return "-" if value is None else bytes_text(value)


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _deviation(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


_PLAIN: dict[str, Callable[[Row], Any]] = {
    "variant": lambda row: row.variant,
    "best_lr": lambda row: row.found.best,
    "at_edge": lambda row: row.found.at_edge,
    "seeds": lambda row: len(row.losses),
    "diverged_seeds": lambda row: row.diverged_seeds,
    "loss_mean": lambda row: _mean(row.losses),
    "loss_std": lambda row: _deviation(row.losses),
    "mlm_accuracy_mean": lambda row: _mean(row.finals(ACCURACY.name)),
    "mlm_accuracy_std": lambda row: _deviation(row.finals(ACCURACY.name)),
    "perplexity_mean": lambda row: _mean(row.finals(PERPLEXITY.name)),
    "perplexity_std": lambda row: _deviation(row.finals(PERPLEXITY.name)),
    "difference": lambda row: row.against.mean if row.against else None,
    "difference_low": lambda row: row.against.low if row.against else None,
    "difference_high": lambda row: row.against.high if row.against else None,
    "p_unadjusted": lambda row: row.against.p if row.against else None,
    "p": lambda row: row.p,
    "verdict": lambda row: row.word,
    "target_loss": lambda row: row.target,
    "seeds_at_target": lambda row: len(row.steps_to_target),
    "steps_to_target": steps_to_target,
    "tokens_to_target": tokens_to_target,
    "step_seconds": lambda row: row.median("step_seconds"),
    "state_bytes": lambda row: row.largest("memory_optimizer_bytes"),
    "peak_bytes": lambda row: row.largest("memory_peak_bytes"),
    "rates": lambda row: " ".join(f"{rate!r}" for rate in row.found.scores),
    "losses_at_rates": lambda row: " ".join("diverged" if score is None else repr(score) for score in row.found.scores.values()),
    "losses": lambda row: " ".join(map(repr, row.losses)),
}
