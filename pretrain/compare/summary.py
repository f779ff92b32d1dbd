"""A comparison as it stands, for whoever shows it: its head, its rows, its notes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pretrain.compare import remarks
from pretrain.compare.design import Design, merged
from pretrain.compare.outcomes import read_outcomes
from pretrain.compare.rows import Row, baseline_of, judged, row_of
from pretrain.report.scores import ACCURACY, PERPLEXITY


@dataclass(frozen=True)
class Summary:
    """A comparison as it stands."""

    folders: tuple[Path, ...]
    """As they were given."""
    head: tuple[str, ...]
    """What is equal, and what is not."""
    rows: tuple[Row, ...]
    """Whole ones first, the best of them at the top."""
    notes: tuple[str, ...]
    score: str
    """The second score's name in the `eval` lines: MLM accuracy, or perplexity."""
    baseline: str
    """The variant that the others are held against."""

    @property
    def title(self) -> str:
        return ", ".join(folder.resolve().name for folder in self.folders)


def summarise(designs: Mapping[Path, Design]) -> Summary:
    """Raises UserError where the comparisons, or two runs, are not equal."""
    design = merged(designs)
    outcomes = read_outcomes(designs)
    baseline = baseline_of(design)
    rows = judged([row_of(name, design, outcomes) for name in design.variants], baseline)
    perplexity = any(row.finals(PERPLEXITY.name) for row in rows)
    return Summary(
        tuple(designs),
        tuple(remarks.head(design, outcomes, rows)),
        tuple(rows),
        tuple(remarks.notes(design, rows, baseline)),
        PERPLEXITY.name if perplexity else ACCURACY.name,
        baseline,
    )
