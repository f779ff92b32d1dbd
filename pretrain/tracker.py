"""Where a run's metrics go besides metrics.jsonl: Weights & Biases, or nowhere. A tracker never fails a run."""

import logging
import os
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from pretrain.config.schema import Config, WandbConfig

logger = logging.getLogger("pretrain")


class Tracker(Protocol):
    """Receives every line of metrics.jsonl."""

    def log(self, line: dict[str, Any]) -> None: ...

    def finish(self) -> None: ...


class NoTracker:
    """metrics.jsonl is enough."""

    def log(self, line: dict[str, Any]) -> None:
        pass

    def finish(self) -> None:
        pass


class WandbTracker:
    """Weights & Biases, offline unless a key is at hand. Metrics keep their names, with the kind of line in front: `train/loss`."""

    def __init__(self, config: Config, tracker: WandbConfig, folder: Path, plan: dict[str, Any]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._run = wandb.init(
            project=tracker.project,
            entity=tracker.entity,
            name=config.run.name,
            id=_run_id(folder),
            resume="allow",
            dir=folder,
            mode=_mode(tracker),
            config={**asdict(config), "plan": plan},
            settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True),
        )
        # W&B's own step may only rise; ours is a value, so that a resumed run may go back.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, line: dict[str, Any]) -> None:
        values = {f"{line['kind']}/{name}": value for name, value in line.items() if isinstance(value, (int, float)) and name != "step"}
        if self._run is not None and values:
            self._guarded(lambda: self._run.log({"step": line.get("step", 0), **values}, commit=True))

    def finish(self) -> None:
        if self._run is not None:
            self._guarded(self._run.finish)

    def _guarded(self, action: Any) -> None:
        try:
            action()
        except Exception as error:  # whatever it is, the run is worth more than its curves
            logger.warning("warning: Weights & Biases failed (%s); going on without it, metrics.jsonl has everything", error)
            self._run = None


def make_tracker(config: Config, folder: Path, plan: dict[str, Any]) -> Tracker:
    """The configured tracker, or none where it cannot be started."""
    if not isinstance(config.tracker, WandbConfig):
        return NoTracker()
    try:
        return WandbTracker(config, config.tracker, folder, plan)
    except Exception as error:
        logger.warning("warning: Weights & Biases did not start (%s); going on without it, metrics.jsonl has everything", error)
        return NoTracker()


def _mode(tracker: WandbConfig) -> str:
    """`auto` is decided here, from the key alone: asking the network could take seconds."""
    if tracker.mode != "auto":
        return tracker.mode
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    import wandb

    return "online" if os.environ.get("WANDB_API_KEY") or wandb.api.api_key else "offline"


def _run_id(folder: Path) -> str:
    """One id for the life of a run folder, so that a resumed run stays one run."""
    path = folder / "wandb_id"
    if not path.exists():
        path.write_text(secrets.token_hex(4))
    return path.read_text().strip()
