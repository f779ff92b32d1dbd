"""One mistake in what a user gives: the command line, what lies in the folder, and what the complaint has to name."""

from dataclasses import dataclass, field
from pathlib import Path

HUGE = "1" + "0" * 400
"""A number that nothing is as large as."""


@dataclass(frozen=True)
class Mistake:
    """A command line that has to be refused."""

    arguments: tuple[str, ...]
    names: tuple[str, ...]
    """One of these has to be in the complaint: the key or the argument that is wrong."""
    command: str = "pretrain"
    """The module: pretrain, pretrain.prepare or pretrain.sample."""
    files: dict[str, bytes | None] = field(default_factory=dict, hash=False, compare=False)
    """What lies in the folder where the command is given: path -> contents; None: a folder."""

    def write_files(self, folder: Path) -> None:
        for name, contents in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if contents is None else path.write_bytes(contents)

    def __str__(self) -> str:
        return f"{self.command} {' '.join(map(repr, self.arguments))[:200]}"
