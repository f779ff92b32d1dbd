"""Going on from a checkpoint: the newest that is whole, at any number of ranks and any stage."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from came import checkpoint as came_checkpoint
from came.safe_reading import UnsafeCheckpoint
from pretrain import distributed
from pretrain.checkpoint import manifest
from pretrain.checkpoint.manifest import Damaged, Manifest
from pretrain.checkpoint.opening import Opened
from pretrain.checkpoint.progress import Progress
from pretrain.data.progress import Progress as ProgressBar
from pretrain.engine import Engine
from pretrain.errors import UserError


def choose(candidates: Sequence[Path], fall_back: bool) -> Opened:
    """The checkpoint to go on from: the first whole one of `candidates`; a collective call.

    Raises UserError, the same on every rank, where none is whole or, without `fall_back`, where the first is not.
    """
    opened, damaged = first_whole(candidates if fall_back else candidates[:1])
    if opened is not None:
        return opened
    if not fall_back:
        path, problem = damaged.popitem()
        raise UserError(f"{path} is damaged ({problem}); run.resume=must goes on from no other, run.resume=auto takes the one before")
    raise UserError(f"no checkpoint in {candidates[0].parent} is whole ({told(damaged)}); put a whole one there, or give another run.name")


def first_whole(candidates: Sequence[Path]) -> tuple[Opened | None, dict[Path, str]]:
    """The first whole one of `candidates`, if one is, and what is wrong with those before it; a collective call, in which the ranks share
    the reading of each one's files."""
    damaged: dict[Path, str] = {}
    for path in candidates:
        problem = _problem_of(path)
        if problem is None:
            return Opened(path, manifest.read(path), damaged), damaged
        damaged[path] = problem
    return None, damaged


def told(damaged: Mapping[Path, str]) -> str:
    """What is wrong with several checkpoints, for one line."""
    return "; ".join(f"{path.name}: {problem}" for path, problem in damaged.items())


def restore(engine: Engine, chosen: Opened) -> Progress:
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


def _problem_of(path: Path) -> str | None:
    """What is wrong with a checkpoint on whatever rank; None where it is whole."""
    mine = None
    try:
        share = manifest.total_bytes(manifest.read(path)) // distributed.world_size()
        with ProgressBar(f"checking {path.name}", share, shown=distributed.is_main()) as bar:
            check(path, (distributed.rank(), distributed.world_size()), bar.advance)
    except Damaged as error:
        mine = error.problem
    return next((problem for problem in distributed.gather_objects(mine) if problem is not None), None)
