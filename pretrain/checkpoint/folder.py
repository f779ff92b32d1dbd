"""The folder of a run's checkpoints: `step_00000100/`, ..., and `latest`, which names the newest and moves last.

A checkpoint appears under its name in one instant and disappears in one: what has a name was whole when it got it.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pretrain import durable

_NAME = re.compile(r"step_(\d{8,})")
_TEMPORARY = ".tmp"
_DAMAGED = ".damaged"


@dataclass(frozen=True)
class CheckpointFolder:
    """`<run>/checkpoints/`. It need not exist."""

    path: Path

    def of_step(self, step: int) -> Path:
        return self.path / f"step_{step:08d}"

    def all(self) -> list[Path]:
        """Everything that has a checkpoint's name, oldest first."""
        return sorted((path for path in self.path.glob("step_*") if _NAME.fullmatch(path.name)), key=step_of)

    def set_aside_ones(self) -> list[Path]:
        """What `set_aside` has left."""
        return sorted(self.path.glob(f"step_*{_DAMAGED}"))

    def latest(self) -> Path | None:
        """What `latest` names, where that is a checkpoint's name."""
        try:
            name = (self.path / "latest").read_text(errors="replace").strip()
        except OSError:
            return None
        return self.path / name if _NAME.fullmatch(name) else None

    def candidates(self) -> list[Path]:
        """The checkpoints to go on from, best first: the one that `latest` names and those before it; where it names none, all."""
        latest, existing = self.latest(), self.all()
        if latest is not None and latest in existing:
            existing = existing[: existing.index(latest) + 1]
        return existing[::-1]

    # Changing it --------------------------------------------------------------------------------------------------------------

    def begin(self, step: int) -> Path:
        """An empty folder to write the checkpoint of `step` into."""
        temporary = self._temporary(self.of_step(step))
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        return temporary

    def publish(self, step: int) -> Path:
        """Give what was written its name, then let `latest` name it."""
        final = self.of_step(step)
        if final.exists():  # never the one that `latest` names: the run would have gone on from it
            self._remove(final)
        self._temporary(final).rename(final)
        durable.flush(self.path)
        pointer = self.path / f"latest{_TEMPORARY}"
        durable.write(pointer, final.name)
        pointer.replace(self.path / "latest")
        durable.flush(self.path)
        return final

    def prune(self, keep_last: int, keep_every: int) -> None:
        """Remove old checkpoints: all but the last `keep_last` (0: none is old) and those of every `keep_every`-th step (0: none)."""
        latest = self.latest()
        older = [path for path in self.all() if latest is not None and step_of(path) <= step_of(latest)]
        for path in older[:-keep_last] if keep_last else []:
            if not keep_every or step_of(path) % keep_every:
                self._remove(path)

    def set_aside(self, damaged: Path) -> Path:
        """Take a damaged checkpoint's name away, and keep what there is of it."""
        aside = damaged.with_suffix(_DAMAGED)
        shutil.rmtree(aside, ignore_errors=True)
        return damaged.rename(aside)

    def clean(self) -> None:
        """Remove what interrupted processes left behind. Only for the one process that may write here."""
        for path in self.path.glob(f"step_*{_TEMPORARY}"):
            shutil.rmtree(path, ignore_errors=True)

    def _remove(self, checkpoint: Path) -> None:
        gone = self._temporary(checkpoint.with_suffix(".old"))
        shutil.rmtree(gone, ignore_errors=True)
        checkpoint.rename(gone)
        shutil.rmtree(gone)

    @staticmethod
    def _temporary(path: Path) -> Path:
        return path.with_name(path.name + _TEMPORARY)


def has_name(path: Path) -> bool:
    """Whether it is called as checkpoints are."""
    return _NAME.fullmatch(path.name) is not None


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name."""
    match = _NAME.fullmatch(checkpoint.name)
    assert match is not None
    return int(match[1])
