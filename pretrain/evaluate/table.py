"""What an evaluation says: one object with every figure, or a few lines to read."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """The figures of one evaluation."""

    figures: dict[str, Any]
    """JSON values by name."""
    lines: dict[str, str]
    """The same for a reader: what a line is about, and the line."""

    def as_dict(self) -> dict[str, Any]:
        return self.figures

    def as_table(self) -> str:
        return "\n".join(f"{name:>10}  {text}" for name, text in self.lines.items())


def as_value(value: float | None) -> str:
    """A figure, to four places or, where it is large, to six digits; `-` where there is none."""
    if value is None:
        return "-"
    return f"{value:.4f}" if value < 100 else f"{value:.6g}"
