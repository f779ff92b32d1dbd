"""Writing checkpoints while training goes on: the step pays for a copy into the host's memory, a thread does the rest.

A save that fails, for want of space or a folder that is gone, fails on every rank alike, leaves the last good checkpoint as it was, and
is no reason to stop: `Saver` reports it and can be asked again.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from came import checkpoint as came_checkpoint
from pretrain import distributed
from pretrain.checkpoint import manifest
from pretrain.checkpoint.folder import CheckpointFolder
from pretrain.checkpoint.progress import Progress
from pretrain.config.schema import CheckpointConfig
from pretrain.engine import Engine


@dataclass(frozen=True)
class Saved:
    """What became of one save."""

    progress: Progress
    path: Path
    error: str | None
    """Why it failed; None: the checkpoint is whole, on disk and named by `latest`."""
    copy_seconds: float
    """What the training waited."""
    seconds: float
    """From the beginning to its name."""
    num_bytes: int = 0


class Saver:
    """The checkpoints of one run on this rank; every method is to be called by all ranks together, except `finished`.

    Args:
        folder: where they go.
        settings: how many are kept, and whether a thread writes them.
        about: rank 0's further facts for the manifest (config, data, ranks, ...).
        prepare: called on rank 0 before each save: makes the run's folder what it must be.
    """

    def __init__(self, folder: CheckpointFolder, settings: CheckpointConfig, about: dict[str, Any], prepare: Callable[[], None]) -> None:
        self._folder, self._settings, self._about, self._prepare = folder, settings, about, prepare
        self._group = distributed.cpu_group()
        self._buffers: came_checkpoint.State = {}
        self._thread: threading.Thread | None = None
        self._outcome: Saved | BaseException | None = None
        self.newest: Progress | None = None
        """Of the newest checkpoint that is known to be whole."""

    def save(self, engine: Engine, progress: Progress) -> None:
        """Begin to save what `engine` holds now. An earlier save must have been waited for."""
        assert self._thread is None
        begun = time.monotonic()
        progress.loss_scale = engine.loss_scale
        now = Progress(**asdict(progress))
        if self.newest is not None and self.newest.step == now.step:
            write = self._write_progress  # steps were only skipped since: weights and state are what they were
        else:
            write = self._write
            self._buffers = came_checkpoint.stage(came_checkpoint.state_dict(engine.optimizer, engine.names), self._buffers)
        copied = time.monotonic()

        def run() -> None:
            if engine.device.type == "cuda":
                torch.cuda.set_device(engine.device)  # a new thread begins on the first GPU, whose memory is another rank's
            path, error, num_bytes = self._folder.of_step(now.step), None, 0
            try:
                num_bytes = write(now)
            except OSError as failure:
                error = failure.strerror or str(failure)
            except BaseException as failure:  # not the disk: for the main thread
                self._outcome = failure
                return
            self._outcome = Saved(now, path, error, copied - begun, time.monotonic() - begun, num_bytes)

        self._thread = threading.Thread(target=run, name="checkpoint", daemon=True)
        self._thread.start()
        if not self._settings.asynchronous:
            self._thread.join()

    def finished(self) -> bool:
        """Whether a save has come to its end and `wait` will return at once."""
        return self._thread is not None and not self._thread.is_alive()

    def wait(self) -> Saved | None:
        """How the save ended that is going on, if there is one. Raises what was not the disk's fault."""
        if self._thread is None:
            return None
        self._thread.join()
        self._thread, outcome = None, self._outcome
        if isinstance(outcome, BaseException):
            raise outcome
        assert outcome is not None
        if outcome.error is None:
            self.newest = outcome.progress
        elif self.newest is not None and self.newest.step == outcome.progress.step:
            self.newest = None  # it is no longer there: the next save writes all of it
        return outcome

    # In the thread ------------------------------------------------------------------------------------------------------------

    def _write(self, progress: Progress) -> int:
        """The whole checkpoint; returns its bytes."""
        temporary = distributed.on_main(lambda: self._begin(progress.step), self._group)
        written = distributed.on_all(lambda: self._write_data(temporary), self._group)
        files = {name: entry for part in distributed.gather_objects(written, self._group) for name, entry in part.items()}
        return distributed.on_main(lambda: self._publish(temporary, progress, files), self._group)

    def _begin(self, step: int) -> Path:
        self._prepare()
        return self._folder.begin(step)

    def _write_data(self, temporary: Path) -> dict[str, Any]:
        """This rank's files, with their checksums."""
        came_checkpoint.write(self._buffers, temporary, self._group)
        names = [path.name for path in temporary.glob(f"__{distributed.rank()}_*")]
        return manifest.described(temporary, [*names, ".metadata"] if distributed.is_main() else names)

    def _publish(self, temporary: Path, progress: Progress, files: dict[str, Any]) -> int:
        unseen = [name for name in files if not (temporary / name).exists()]
        if unseen:
            raise OSError(f"rank 0 does not see {unseen[0]}, which another rank wrote: the run folder is not on a shared file system")
        manifest.write(temporary, asdict(progress), files, self._about)
        self._folder.publish(progress.step)
        self._folder.prune(self._settings.keep_last, self._settings.keep_every)
        return sum(entry["bytes"] for entry in files.values())

    def _write_progress(self, progress: Progress) -> int:
        """Only the counts of the checkpoint that is already there."""

        def replace() -> int:
            checkpoint = self._folder.of_step(progress.step)
            try:
                found = manifest.read(checkpoint)
            except manifest.Damaged as error:
                raise OSError(str(error)) from error
            about = {key: value for key, value in found.items() if key not in ("format_version", "progress", "files")}
            manifest.write(checkpoint, asdict(progress), found["files"], about)
            return manifest.total_bytes(found)

        return distributed.on_main(replace, self._group)
