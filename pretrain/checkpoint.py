"""Checkpoints of a run: `checkpoints/step_00000100/` and `latest`, which moves last.

Weights and optimizer state are `came.checkpoint`'s, free of world size and ZeRO stage; beside them `progress.json` holds the little
else that a run needs to go on: everything random follows from the seed and the position.
"""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from came import checkpoint as came_checkpoint
from pretrain import distributed, durable
from pretrain.engine import Engine
from pretrain.run_folder import RunFolder

PROGRESS = "progress.json"


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    """Applied optimizer updates."""
    skipped_steps: int = 0
    """Steps that were not applied: not finite, or refused by the spike guard."""
    loss_scale: float = 1.0
    recent_grad_norms: list[float] = field(default_factory=list)
    """What the spike guard judges by."""

    def position(self, global_batch_size: int) -> int:
        """Samples drawn so far: a skipped batch is not retried."""
        return (self.step + self.skipped_steps) * global_batch_size


def save(engine: Engine, folder: RunFolder, progress: Progress) -> Path:
    """Write a checkpoint; a collective call. It appears under its name only when it is whole and on disk."""
    final = folder.checkpoint(progress.step)
    temporary = final.with_suffix(".tmp")
    distributed.on_main(lambda: _make_empty(temporary))
    progress.loss_scale = engine.loss_scale
    came_checkpoint.save(engine.optimizer, engine.names, temporary)
    distributed.on_main(lambda: _publish(temporary, final, progress))
    return final


def restore(engine: Engine, checkpoint: Path) -> Progress:
    """Load a checkpoint into a fresh engine, at any number of ranks and any stage; a collective call."""
    came_checkpoint.load(engine.optimizer, engine.names, checkpoint)
    engine.push_masters()
    progress = Progress(**json.loads((checkpoint / PROGRESS).read_text()))
    engine.set_loss_scale(progress.loss_scale)
    return progress


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _publish(temporary: Path, final: Path, progress: Progress) -> None:
    """Give a written checkpoint its name, then let `latest` name it."""
    durable.write(temporary / PROGRESS, json.dumps(asdict(progress)))
    shutil.rmtree(final, ignore_errors=True)  # never the one that `latest` names: a run does not save a step twice
    temporary.rename(final)
    durable.flush(final.parent)
    pointer = final.parent / "latest.tmp"
    durable.write(pointer, final.name)
    pointer.replace(final.parent / "latest")
    durable.flush(final.parent)
