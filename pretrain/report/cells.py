"""Rows of cells as text: aligned for a terminal, or as a Markdown table."""

from collections.abc import Iterable, Sequence


def aligned(rows: Sequence[Sequence[str]], left: Sequence[bool]) -> list[str]:
    """One line per row, columns two spaces apart; `left`: whether a column's cells stand to the left. Nothing in them steers a terminal."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(_padded, row, widths, left)).rstrip() for row in rows]


def markdown(rows: Sequence[Sequence[str]], left: Sequence[bool]) -> list[str]:
    """The first row is the head."""
    head, *others = rows
    return [_row(map(escaped, head)), _row(":--" if is_left else "--:" for is_left in left), *(_row(map(escaped, row)) for row in others)]


def printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def escaped(text: str) -> str:
    """Plain text in Markdown."""
    for character in "\\|<>`*_":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")


def _padded(text: str, width: int, left: bool) -> str:
    return text.ljust(width) if left else text.rjust(width)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
