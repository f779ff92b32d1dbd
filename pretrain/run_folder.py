"""A run's folder: what lies where, and whether a command begins, continues or repeats the run in it."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from pretrain import durable
from pretrain.checkpoint.folder import CheckpointFolder
from pretrain.config.consistency import differences, mathematical_settings, other_settings
from pretrain.config.schema import Config
from pretrain.config.serialise import from_yaml, to_yaml
from pretrain.errors import UserError
from pretrain.metrics import Line, last, read_metrics
from pretrain.user_path import user_path

_LOCK_SECONDS = 1.0
"""A report has the lock for a moment, to see whether somebody holds it."""


@dataclass(frozen=True)
class Beginning:
    """Where a command finds its run."""

    candidates: tuple[Path, ...] = ()
    """The checkpoints to go on from, best first; none: from step 0."""
    begun: bool = False
    """The run's metrics have a beginning, with or without a checkpoint."""
    finished: bool = False
    """The run has already reached its end."""
    changed: tuple[str, ...] = ()
    """Settings that differ from those of the last time and change no number, as `zero.stage: 2 -> 3`."""
    ranks: int | None = None
    """Of the last time."""


@dataclass(frozen=True)
class RunFolder:
    """`<run.dir>/<run.name>/`."""

    path: Path

    @classmethod
    def of(cls, config: Config) -> "RunFolder":
        return cls(user_path(config.run.dir, "run.dir=") / config.run.name)

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def export(self) -> Path:
        return self.path / "export"

    @property
    def tokenizer(self) -> Path:
        """With it the checkpoints can be exported and sampled from, wherever the prepared data are by then."""
        return self.path / "tokenizer"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def wandb_id(self) -> Path:
        return self.path / "wandb_id"

    @property
    def profile(self) -> Path:
        return self.path / "profile"

    @property
    def checkpoint_folder(self) -> CheckpointFolder:
        return CheckpointFolder(self.checkpoints)

    def checkpoint(self, step: int) -> Path:
        return self.checkpoint_folder.of_step(step)

    def latest_checkpoint(self) -> Path | None:
        """The newest checkpoint that is whole by its manifest and its files' sizes; None where there is none."""
        from pretrain.checkpoint import manifest

        for path in self.checkpoint_folder.candidates():
            with suppress(manifest.Damaged):
                manifest.read(path)
                return path
        return None

    def inspect(self, config: Config, data_fingerprint: str | None = None, sources: Sequence[str] = ()) -> Beginning:
        """What `config` finds here; changes nothing. The data are compared where their fingerprint and their sources' names, in the order
        in which these take turns, are given.

        Raises UserError where the folder holds another run, or where `run.resume` does not allow what is found.
        """
        if not self.config.exists():
            if config.run.resume == "must":
                raise UserError(f"run.resume=must, but {self.path} holds no run; give the run's own run.name, or leave run.resume out")
            if self.metrics.exists() or self.checkpoints.exists():
                raise UserError(f"{self.path} holds a run without its config.yaml; give another run.name, or put the file back")
            return Beginning()
        if config.run.resume == "never":
            raise UserError(f"run.resume=never, but {self.path} already holds a run; give another run.name, or delete the folder")
        candidates, lines = self.checkpoint_folder.candidates(), read_metrics(self.metrics)
        if config.run.resume == "must" and self.checkpoint_folder.latest() not in candidates:
            lacks = f"has no checkpoint that {self.checkpoints / 'latest'} names" if candidates else "has no checkpoint yet"
            raise UserError(f"run.resume=must, but the run in {self.path} {lacks}; leave run.resume out to go on from what there is")
        start, end = last(lines, "start"), last(lines, "end")
        old = from_yaml(self.config.read_text(encoding="utf-8", errors="replace"))
        changed = differences(mathematical_settings(old), mathematical_settings(config))
        self._refuse_another_run([*changed, *_data_differences(start or {}, data_fingerprint, sources)])
        return Beginning(
            candidates=tuple(candidates),
            begun=start is not None,
            finished=end is not None and not end.get("diverged"),
            changed=tuple(differences(other_settings(old), other_settings(config))),
            ranks=_ranks(lines),
        )

    def claim(self, config: Config) -> None:
        """Make the folder this run's: nothing is written before everything that could refuse the run has been tried."""
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.config.with_suffix(".tmp")
        temporary.write_text(to_yaml(config), encoding="utf-8")
        temporary.replace(self.config)

    def keep_tokenizer(self, given: Path) -> None:
        """Copy the tokenizer of the prepared data to where the run keeps it; it appears there whole."""
        if self.tokenizer.exists() and _contents(self.tokenizer) == _contents(given):
            return
        temporary = self.tokenizer.with_suffix(".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(given, temporary)
        durable.flush_tree(temporary)
        shutil.rmtree(self.tokenizer, ignore_errors=True)
        temporary.rename(self.tokenizer)
        durable.flush(self.path)

    def lock(self) -> FileLock:
        """Held, as long as it is kept, by the one process that may write here. Raises UserError where another holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=_LOCK_SECONDS)
        except Timeout as held:
            raise UserError(
                f"the run in {self.path} is being trained by another process; wait for it, or give another run.name, or, if no process "
                f"does, delete {lock.lock_file}"
            ) from held
        return lock

    def _refuse_another_run(self, changed: list[str]) -> None:
        if changed:
            raise UserError(
                f"the run in {self.path} was made with other settings ({'; '.join(changed)}); give another run.name, or the old settings"
            )


def _data_differences(start: Line, fingerprint: str | None, sources: Sequence[str]) -> list[str]:
    """What differs between the data that a run began with and these; nothing where the one or the other is not known."""
    old_fingerprint, old_sources = start.get("data_fingerprint"), start.get("sources")
    if None not in (fingerprint, old_fingerprint) and fingerprint != old_fingerprint:
        return ["the prepared data"]
    if sources and old_sources and list(sources) != old_sources:
        return [f"the order of the data's sources: {', '.join(old_sources)} -> {', '.join(sources)}"]
    return []


def _ranks(lines: list[Line]) -> int | None:
    """How many ranks the run had when it was last started."""
    resume, start = last(lines, "resume"), last(lines, "start")
    return resume["ranks"] if resume else start["plan"]["ranks"] if start and "plan" in start else None


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
