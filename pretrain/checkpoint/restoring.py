"""Going on from a checkpoint: the newest that is whole, at any number of ranks and any stage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from came import checkpoint as came_checkpoint
from came.safe_reading import UnsafeCheckpoint
from pretrain import distributed
from pretrain.checkpoint import manifest
from pretrain.checkpoint.manifest import Damaged, Manifest
from pretrain.checkpoint.progress import Progress
from pretrain.engine import Engine
from pretrain.errors import UserError


@dataclass(frozen=True)
class Chosen:
    """The checkpoint to go on from, and what was wrong with those that were better."""

    path: Path
    manifest: Manifest
    damaged: dict[Path, str]


def choose(candidates: Sequence[Path], fall_back: bool) -> Chosen:
    """The first whole one of `candidates`; a collective call, in which the ranks share the reading of each one's files.

    Raises UserError, the same on every rank, where none is whole or, without `fall_back`, where the first is not.
    """
    damaged: dict[Path, str] = {}
    for path in candidates:
        problem = problem_of(path)
        if problem is None:
            return Chosen(path, manifest.read(path), damaged)
        damaged[path] = problem
        if not fall_back:
            raise UserError(f"{path} is damaged ({problem}); run.resume=must goes on from no other, run.resume=auto takes the one before")
    told = "; ".join(f"{path.name}: {problem}" for path, problem in damaged.items())
    raise UserError(f"no checkpoint in {candidates[0].parent} is whole ({told}); put a whole one there, or give another run.name")


def restore(engine: Engine, chosen: Chosen) -> Progress:
    """Load weights and state into a fresh engine; a collective call. Nothing in the checkpoint is executed."""
    came_checkpoint.load(engine.optimizer, engine.names, chosen.path)
    engine.push_masters()
    progress = manifest.progress_of(chosen.manifest)
    engine.set_loss_scale(progress.loss_scale)
    return progress


def check(path: Path, share: tuple[int, int] = (0, 1), on_file: Callable[[int], None] = lambda num_bytes: None) -> Manifest:
    """The manifest of a checkpoint whose files (or, of n ranks, the k-th share of them) match their checksums and hold tensors alone.
    Raises Damaged."""
    found = manifest.verify(path, share, on_file)
    try:
        came_checkpoint.sizes(path)
    except UnsafeCheckpoint as error:
        raise Damaged(path, str(error)) from error
    return found


def problem_of(path: Path, on_file: Callable[[int], None] = lambda num_bytes: None) -> str | None:
    """What is wrong with a checkpoint on whatever rank; None where it is whole. A collective call, in which each reads its share."""
    mine = None
    try:
        check(path, (distributed.rank(), distributed.world_size()), on_file)
    except Damaged as error:
        mine = error.problem
    return next((problem for problem in distributed.gather_objects(mine) if problem is not None), None)
