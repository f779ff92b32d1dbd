"""Sees to it that a run is in a checkpoint: goes on from one, saves when it is told to, tells what became of it and tries again."""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pretrain import distributed, durable
from pretrain.checkpoint import restoring
from pretrain.checkpoint.progress import Progress
from pretrain.checkpoint.saving import Saver
from pretrain.config.schema import Config
from pretrain.engine import Engine
from pretrain.recorder import Recorder
from pretrain.run_folder import RunFolder

_RETRY_SECONDS = 60.0
"""After a save that failed, until the next try."""


class Keeper:
    """Of one run, on this rank. All ranks call its methods together, except for `listen` and `retry_is_due`."""

    def __init__(
        self, engine: Engine, config: Config, folder: RunFolder, recorder: Recorder, tokenizer: Path, about: dict[str, Any]
    ) -> None:
        self._engine, self._config, self._folder, self._recorder, self._tokenizer = engine, config, folder, recorder, tokenizer
        self._saver = Saver(folder.checkpoint_folder, config.checkpoint, about, self._prepare_folder)
        self._retry_at: float | None = None

    def go_on(self, candidates: Sequence[Path]) -> Progress:
        """Load the newest whole checkpoint and set aside what is damaged before it; returns how far the run was."""
        chosen = restoring.choose(candidates, fall_back=self._config.run.resume != "must")
        for path, problem in chosen.damaged.items():
            aside = distributed.on_main(lambda path=path: self._folder.checkpoint_folder.set_aside(path))
            self._recorder.say(f"warning: {path} is damaged ({problem}); it is now {aside.name}, and {chosen.path.name} is used instead")
        progress = restoring.restore(self._engine, chosen)
        self._saver.newest = Progress(**asdict(progress))
        return progress

    def save(self, progress: Progress) -> None:
        """Begin a checkpoint, after an earlier one has ended."""
        self._hear()
        self._saver.save(self._engine, progress)
        if not self._config.checkpoint.asynchronous:
            self._hear()

    def is_saved(self, progress: Progress) -> bool:
        """Whether, after waiting for it or for one more try, a checkpoint holds the run as it stands; says so where none could be written."""
        self._hear()
        if not self._is_newest(progress):
            self.save(progress)
            self._hear()
        if self._is_newest(progress):
            return True
        newest = self._saver.newest
        if distributed.is_main():
            print(
                f"error: the checkpoint of step {progress.step} could not be written (see above), "
                f"{f'the last good one is of step {newest.step}' if newest else 'there is none'}; "
                f"see to {self._folder.path} and give the same command again",
                file=sys.stderr,
            )
        return False

    def listen(self) -> None:
        """Tell what became of a save that has ended in the meantime."""
        if self._saver.finished():
            self._hear()

    @property
    def retry_is_due(self) -> bool:
        """Whether it is time to try again what failed."""
        return self._retry_at is not None and time.monotonic() >= self._retry_at

    def _is_newest(self, progress: Progress) -> bool:
        newest = self._saver.newest
        return newest is not None and newest.position(1) == progress.position(1)

    def _hear(self) -> None:
        """Wait for the save that is going on, if one is, and tell what became of it."""
        saved = self._saver.wait()
        if saved is None:
            return
        step, newest = saved.progress.step, self._saver.newest
        if saved.error is not None:
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            kept = f"step {newest.step} is the last good one" if newest else "there is none yet"
            self._recorder.say(f"warning: the checkpoint of step {step} could not be written ({saved.error}); {kept}; trying again later")
            return
        self._retry_at = None
        samples = saved.progress.position(self._config.train.global_batch_size)
        self._recorder.record(
            "checkpoint",
            step,
            samples=samples,
            tokens=samples * self._config.data.max_seq_length,
            path=str(saved.path.relative_to(self._folder.path)),
            bytes=saved.num_bytes,
            copy_seconds=saved.copy_seconds,
            save_seconds=saved.seconds,
        )

    def _prepare_folder(self) -> None:
        """Before each save: the run folder as it must be, also where somebody removed it, with all metrics up to now on the disk."""
        if not self._folder.config.exists():
            self._folder.claim(self._config)
            self._folder.keep_tokenizer(self._tokenizer)
        if self._folder.metrics.exists():
            durable.flush(self._folder.metrics)
