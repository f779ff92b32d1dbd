"""A run's folder: what lies where, and whether a command begins, continues or repeats the run in it."""

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from pretrain.config.consistency import differences, mathematical_settings
from pretrain.config.schema import Config
from pretrain.config.serialise import from_yaml, to_yaml
from pretrain.errors import UserError
from pretrain.metrics import last, read_metrics


@dataclass(frozen=True)
class Beginning:
    """Where a command finds its run."""

    checkpoint: Path | None
    """The newest checkpoint, to go on from; None: from step 0."""
    begun: bool
    """The run's metrics have a beginning, with or without a checkpoint."""
    finished: bool
    """The run has already reached its end."""


@dataclass(frozen=True)
class RunFolder:
    """`<run.dir>/<run.name>/`."""

    path: Path

    @classmethod
    def of(cls, config: Config) -> "RunFolder":
        return cls(Path(config.run.dir).expanduser() / config.run.name)

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
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def profile(self) -> Path:
        return self.path / "profile"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step_{step:08d}"

    def latest_checkpoint(self) -> Path | None:
        """What `latest` names, or None before the first checkpoint. Raises UserError where that is not there."""
        latest = self.checkpoints / "latest"
        if not latest.exists():
            return None
        named = self.checkpoints / (latest.read_text(errors="replace").strip() or "nothing")
        if not (named / ".metadata").exists():
            whole = sorted(path.parent.name for path in self.checkpoints.glob("step_*/.metadata") if path.parent.suffix != ".tmp")
            mend = f"write {whole[-1]} into {latest}" if whole else f"delete {self.path} to begin again"
            raise UserError(f"{latest} names {named.name}, which is not a whole checkpoint; {mend}")
        return named

    def inspect(self, config: Config, data_fingerprint: str | None = None) -> Beginning:
        """What `config` finds here; changes nothing. The data are compared where their fingerprint is given.

        Raises UserError where the folder holds another run, or where `run.resume` does not allow what is found.
        """
        if not self.config.exists():
            if config.run.resume == "must":
                raise UserError(f"run.resume=must, but {self.path} holds no run; give the run's own run.name, or leave run.resume out")
            if self.metrics.exists() or self.checkpoints.exists():
                raise UserError(f"{self.path} holds a run without its config.yaml; give another run.name, or put the file back")
            return Beginning(None, False, False)
        if config.run.resume == "never":
            raise UserError(f"run.resume=never, but {self.path} already holds a run; give another run.name, or delete the folder")
        checkpoint, lines = self.latest_checkpoint(), read_metrics(self.metrics)
        if config.run.resume == "must" and checkpoint is None:
            raise UserError(f"run.resume=must, but the run in {self.path} has no checkpoint yet; leave run.resume out to begin again")
        start, end = last(lines, "start"), last(lines, "end")
        old_fingerprint = start["data_fingerprint"] if start else None
        self._refuse_another_run(
            config, data_differ=None not in (data_fingerprint, old_fingerprint) and data_fingerprint != old_fingerprint
        )
        return Beginning(checkpoint, start is not None, end is not None and not end.get("diverged"))

    def claim(self, config: Config) -> None:
        """Make the folder this run's: nothing is written before everything that could refuse the run has been tried."""
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.config.with_suffix(".tmp")
        temporary.write_text(to_yaml(config), encoding="utf-8")
        temporary.replace(self.config)

    def lock(self) -> FileLock:
        """Held, as long as it is kept, by the one process that may write here. Raises UserError where another holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as held:
            raise UserError(f"the run in {self.path} is being trained by another process; wait for it, or give another run.name") from held
        return lock

    def _refuse_another_run(self, config: Config, data_differ: bool) -> None:
        old = from_yaml(self.config.read_text(encoding="utf-8", errors="replace"))
        changed = differences(mathematical_settings(old), mathematical_settings(config))
        if data_differ:
            changed.append("the prepared data")
        if changed:
            raise UserError(
                f"the run in {self.path} was made with other settings ({'; '.join(changed)}); give another run.name, or the old settings"
            )
