"""Where a run's metrics go besides metrics.jsonl: Weights & Biases, or nowhere. A tracker never fails a run and never makes it wait."""

import hashlib
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from pretrain.config.consistency import mathematical_settings
from pretrain.config.schema import Config, WandbConfig
from pretrain.run_folder import RunFolder
from pretrain.wandb_follower import SEED_GROUP, upload_command

logger = logging.getLogger("pretrain")

_FOLLOWER = Path(__file__).with_name("wandb_follower.py")
_FINISH_SECONDS = 60.0
"""For the follower's end: more than it gives an upload."""


class Tracker(Protocol):
    """Follows metrics.jsonl by itself."""

    def check(self) -> None:
        """Pass on what it has to say; returns at once."""

    def finish(self) -> None:
        """Bring everything home, in bounded time; no line is written after this."""


class NoTracker:
    """metrics.jsonl is enough."""

    def check(self) -> None:
        pass

    def finish(self) -> None:
        pass


class WandbTracker:
    """Weights & Biases, offline unless a key is at hand: `wandb_follower.py` in a process of its own reads metrics.jsonl as it grows."""

    def __init__(self, config: Config, tracker: WandbConfig, folder: RunFolder, facts: dict[str, Any]) -> None:
        self._folder = str(folder.path.absolute())
        init = wandb_init(config, folder, facts, tracker.project, tracker.entity) | {"mode": tracker.mode}
        job = {"metrics": str(folder.metrics.absolute()), "offset": folder.metrics.stat().st_size, "init": init}
        # In a session of its own Ctrl-C does not reach it: the end of this process does, as the end of its input.
        self._process = subprocess.Popen(
            [sys.executable, "-P", _FOLLOWER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        os.set_blocking(self._process.stdout.fileno(), False)
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._crash_told = False

    def check(self) -> None:
        code = self._process.poll()
        for text in (self._process.stdout.read() or b"").decode(errors="replace").splitlines():
            logger.warning("warning: Weights & Biases %s", text)
        if code and not self._crash_told:
            self._crash_told = True
            logger.warning("warning: Weights & Biases ended with exit code %d; going on without it, metrics.jsonl has everything", code)

    def finish(self) -> None:
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_FINISH_SECONDS)
        except subprocess.TimeoutExpired:
            self.check()
            os.killpg(self._process.pid, signal.SIGKILL)  # with W&B's own service
            self._process.wait()
            logger.warning(
                "warning: Weights & Biases did not finish in %.0f s; upload what is missing with: %s",
                _FINISH_SECONDS,
                upload_command(self._folder),
            )
        else:
            self.check()


def make_tracker(config: Config, folder: RunFolder, facts: dict[str, Any]) -> Tracker:
    """The configured tracker, or none where it cannot be started. `facts` (the plan, versions, git revision) join the config there."""
    if not isinstance(config.tracker, WandbConfig):
        return NoTracker()
    try:
        return WandbTracker(config, config.tracker, folder, facts)
    except Exception as error:  # whatever it is, the run is worth more than its curves
        logger.warning("warning: Weights & Biases did not start (%s); going on without it, metrics.jsonl has everything", error)
        return NoTracker()


def wandb_init(config: Config, folder: RunFolder, facts: dict[str, Any], project: str, entity: str | None) -> dict[str, Any]:
    """The arguments of `wandb.init` for the run in `folder`, all but the mode."""
    return {
        "project": project,
        "entity": entity,
        "name": config.run.name,
        "id": _run_id(folder.wandb_id),
        "dir": str(folder.path.absolute()),
        "config": asdict(config) | facts | {SEED_GROUP: _seed_group(config)},
    }


def _seed_group(config: Config) -> str:
    """The same for runs that differ in `run.seed` alone: W&B groups by it, to draw them as one band."""
    settings = mathematical_settings(config) | {f"data.{name}": value for name, value in asdict(config.data).items() if name != "cache_dir"}
    del settings["run.seed"]
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=3).hexdigest()
    return f"{config.model.name} {config.optimizer.name} lr {config.optimizer.lr:g} ({digest})"


def _run_id(path: Path) -> str:
    """One id for the life of a run folder, so that a resumed run stays one run."""
    if not path.exists():
        path.write_text(secrets.token_hex(4))
    return path.read_text().strip()
