"""A run's folder: what lies where, and whether a command begins, continues or repeats the run in it."""

from dataclasses import dataclass
from pathlib import Path

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
    resumed: bool
    """The folder already held this run, with or without a checkpoint."""
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

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step_{step:08d}"

    def latest_checkpoint(self) -> Path | None:
        """What `latest` names, or None before the first checkpoint."""
        latest = self.checkpoints / "latest"
        return self.checkpoints / latest.read_text().strip() if latest.exists() else None

    def begin(self, config: Config, data_fingerprint: str) -> Beginning:
        """Open the folder for `config`: write its config.yaml, or check that the run in it is this one.

        Raises UserError where the folder holds another run, or where `run.resume` does not allow what is found.
        """
        checkpoint = self.latest_checkpoint()
        if not self.config.exists():
            if config.run.resume == "must":
                raise UserError(f"run.resume=must, but {self.path} holds no run; give the run's own run.name, or leave run.resume out")
            self.path.mkdir(parents=True, exist_ok=True)
            self._write_config(config)
            return Beginning(None, False, False)
        if config.run.resume == "never":
            raise UserError(f"run.resume=never, but {self.path} already holds a run; give another run.name, or delete the folder")
        if config.run.resume == "must" and checkpoint is None:
            raise UserError(f"run.resume=must, but the run in {self.path} has no checkpoint yet; leave run.resume out to begin again")
        lines = read_metrics(self.metrics)
        self._refuse_another_run(config, data_fingerprint, (last(lines, "start") or {}).get("data_fingerprint", data_fingerprint))
        self._write_config(config)
        return Beginning(checkpoint, True, last(lines, "end") is not None)

    def _refuse_another_run(self, config: Config, data_fingerprint: str, old_fingerprint: str) -> None:
        old = from_yaml(self.config.read_text(encoding="utf-8"))
        changed = differences(mathematical_settings(old), mathematical_settings(config))
        if data_fingerprint != old_fingerprint:
            changed.append("the prepared data")
        if changed:
            raise UserError(f"the run in {self.path} was made with other settings ({'; '.join(changed)}); give another run.name, or the old settings")

    def _write_config(self, config: Config) -> None:
        temporary = self.config.with_suffix(".tmp")
        temporary.write_text(to_yaml(config), encoding="utf-8")
        temporary.replace(self.config)
