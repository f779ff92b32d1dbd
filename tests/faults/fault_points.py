"""Named moments at which a run can be killed. Each is a function that replaces one of the product's by one that kills all ranks there."""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from tests.forked_runs import kill_run

AT_STEP = 5
"""The step in which a rank dies, and during or after the second checkpoint, of step 4, where the fault is one of saving."""


def wrap(owner: Any, name: str, before: Callable[..., None] | None = None, after: Callable[..., None] | None = None) -> None:
    """Call `before` and `after` around a function, with its arguments."""
    original = getattr(owner, name)

    @wraps(original)
    def wrapped(*args: Any, **settings: Any) -> Any:
        if before:
            before(*args, **settings)
        result = original(*args, **settings)
        if after:
            after(*args, **settings)
        return result

    setattr(owner, name, wrapped)


def on_call(number: int, action: Callable[[], None], when: Callable[..., bool] = lambda *args, **settings: True) -> Callable[..., None]:
    """`action` at the `number`-th call for which `when` holds."""
    calls = 0

    def count(*args: Any, **settings: Any) -> None:
        nonlocal calls
        calls += when(*args, **settings)
        if calls == number:
            action()

    return count


def is_rank(number: int) -> bool:
    return os.environ["RANK"] == str(number)


def in_the_middle_of_a_step(action: Callable[[], None] = kill_run) -> None:
    from pretrain.engine import Engine

    wrap(Engine, "step", before=on_call(AT_STEP, action))


def between_the_ranks_steps(action: Callable[[], None] = kill_run) -> None:
    """Rank 0 has made the step, rank 1 may not have."""
    from pretrain.engine import Engine

    if is_rank(0):
        wrap(Engine, "step", after=on_call(AT_STEP, action))


def while_copying(action: Callable[[], None] = kill_run) -> None:
    from came import checkpoint

    second = _second_save()
    if is_rank(0):
        wrap(checkpoint, "_copied", before=on_call(7, action, when=lambda *args: second()))


def while_writing(action: Callable[[], None] = kill_run) -> None:
    from torch.distributed.checkpoint import filesystem

    second = _second_save()
    if is_rank(1):
        wrap(filesystem, "_write_item", before=on_call(5, action, when=lambda *args: second()))


def before_the_rename(action: Callable[[], None] = kill_run) -> None:
    from pretrain.checkpoint.folder import CheckpointFolder

    wrap(CheckpointFolder, "publish", before=on_call(2, action))


def after_the_rename(action: Callable[[], None] = kill_run) -> None:
    from pretrain import durable

    wrap(durable, "write", before=on_call(2, action, when=lambda path, text: path.name == "latest.tmp"))


def before_latest_moves(action: Callable[[], None] = kill_run) -> None:
    from pretrain import durable

    wrap(durable, "write", after=on_call(2, action, when=lambda path, text: path.name == "latest.tmp"))


def after_latest_moved(action: Callable[[], None] = kill_run) -> None:
    from pretrain.checkpoint.folder import CheckpointFolder

    wrap(CheckpointFolder, "prune", before=on_call(2, action))


def while_pruning(action: Callable[[], None] = kill_run) -> None:
    from pretrain.checkpoint import folder

    def remove_half_and_die(gone: Path, **settings: Any) -> None:
        (gone / ".metadata").unlink()
        action()

    original = folder.shutil.rmtree

    class Rmtree:
        @staticmethod
        def rmtree(path: Path, **settings: Any) -> None:
            if path.name.endswith(".old.tmp") and path.exists():
                remove_half_and_die(path)
            original(path, **settings)

    folder.shutil = Rmtree


def _second_save() -> Callable[[], bool]:
    """Whether the second save has begun."""
    from pretrain.checkpoint.saving import Saver

    saves = 0

    def count(*args: Any) -> None:
        nonlocal saves
        saves += 1

    wrap(Saver, "save", before=count)
    return lambda: saves == 2


POINTS: dict[str, Callable[..., None]] = {
    point.__name__: point
    for point in (
        in_the_middle_of_a_step,
        between_the_ranks_steps,
        while_copying,
        while_writing,
        before_the_rename,
        after_the_rename,
        before_latest_moves,
        after_latest_moved,
        while_pruning,
    )
}
