"""The rows of the matrix as a Markdown table, and what it all comes to in one line."""

from collections.abc import Sequence

from came.verify.matrix import Row
from came.verify.probe import UPDATE_BOUND, WEIGHT_BOUND

_HEADER = ("optimizer", "stage", "dtype", "ranks", "weight", "update", "verdict", "state", "of AdamW", "shape-reading: update", "state")


def table(rows: Sequence[Row]) -> str:
    lines = [_HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADER))]
    drawn = ["| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in lines]
    drawn.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(drawn)


def verdict(rows: Sequence[Row]) -> str:
    judged, failed = [row for row in rows if row.cell.judged], [row for row in rows if not row.holds]
    worst = (
        f"largest errors: weights {max(row.weight for row in judged):.1e}, updates {max(row.update for row in judged):.1e}"
        if judged
        else ""
    )
    bounds = f"bounds {WEIGHT_BOUND:.0e}, {UPDATE_BOUND:.0e}"
    if failed:
        return f"{len(failed)} of {len(rows)} cells FAIL ({bounds})"
    return f"all {len(rows)} cells hold; " + (f"{worst} ({bounds})" if judged else "none is judged for exactness")


EXPLANATION = """\
weight   max|w - ref| / max|ref| after 20 steps, worst parameter; ref is the algorithm on whole tensors
update   ||dw - dref|| / ||dref||, worst parameter; dw is what the 20 steps changed
verdict  pass: both within bounds, and every rank's state takes the bytes that came.memory predicts, to the byte
         shown: not judged, because DeepSpeed itself adds gradients up in bf16 at stage 0
state    bytes of optimizer state on the fullest rank (of AdamW: as a part of AdamW's)
shape-reading: the same algorithm as it comes out where it takes the flat partition that it is handed for the parameter"""


def _cells(row: Row) -> tuple[str, ...]:
    mark = "pass" if row.holds and row.cell.judged else "shown" if row.holds else "FAIL"
    if row.state_bytes != row.predicted_bytes:
        mark = f"FAIL: {row.predicted_bytes} bytes predicted, {row.state_bytes} found"
    return (
        row.cell.optimizer,
        str(row.cell.stage),
        row.cell.precision,
        str(row.ranks),
        f"{row.weight:.1e}",
        f"{row.update:.1e}",
        mark,
        f"{max(row.state_bytes):,}",
        f"{max(row.state_bytes) / max(row.adamw_bytes):.2f}",
        f"{row.naive.update:.1e}" if row.naive else "-",
        f"{max(row.naive.state_bytes):,}" if row.naive else "-",
    )
