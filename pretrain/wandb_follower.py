"""Follows a run's metrics.jsonl and hands its lines to Weights & Biases, in a process of its own.

`tracker.py` starts this file with one JSON object on standard input; the end of standard input is the end of the run. Whatever the
user has to hear is a line on standard output. W&B may wait, print, hang or die here: the run does not depend on it, and the records
cannot differ from the file, because they are read from it.
"""

import json
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.5
_UPLOAD_SECONDS = 45.0
"""For what is still to be uploaded at the end of an online run."""
_SETTINGS: dict[str, Any] = {
    "program": "pretrain",
    "console": "off",
    "silent": True,
    "disable_git": True,
    "disable_code": True,
    "x_disable_stats": True,
    "x_transaction_log_flush_interval": 1.0,  # seconds that are lost at most where this machine is lost
    "init_timeout": 30.0,
    "finish_timeout": _UPLOAD_SECONDS,
    "finish_timeout_raises": True,
}


def main() -> int:
    """Follow one run to its end. Whatever can be told is told with exit code 0."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # Slurm sends them to all: the run decides when it ends
    tell = _take_output()
    job = json.loads(sys.stdin.buffer.readline())
    try:
        run = _start(job["init"], tell)
    except Exception as error:
        tell(f"did not start ({_one_line(error)}); going on without it, metrics.jsonl has everything")
        return 0
    complete = False
    try:
        for line in _follow(Path(job["metrics"]), job["offset"]):
            _log(run, line)
            complete = line["kind"] == "end" and not line.get("diverged")
        run.finish(exit_code=0 if complete else 1)
    except TimeoutError:
        tell(f"has not taken everything after {_UPLOAD_SECONDS:.0f} s; upload the rest with: wandb sync {Path(run.dir).parent}")
    except Exception as error:
        tell(f"stopped ({_one_line(error)}); going on without it, metrics.jsonl has everything")
    return 0


def _take_output() -> Callable[[str], None]:
    """Keep standard output for what the user has to hear; what W&B and its service print there goes nowhere."""
    channel, nowhere = os.fdopen(os.dup(1), "w", buffering=1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    return lambda text: print(text, file=channel)


def _start(init: dict[str, Any], tell: Callable[[str], None]) -> Any:
    """A W&B run; offline where it cannot be had online."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    known = {name: value for name, value in _SETTINGS.items() if name in wandb.Settings.model_fields}  # older versions lack some

    def started(mode: str) -> Any:
        return wandb.init(**init | {"mode": mode, "resume": "allow", "settings": wandb.Settings(**known)})

    mode = _mode(init["mode"])
    try:
        run = started(mode)
    except Exception as error:
        if mode != "online":
            raise
        wandb.teardown()  # the service still holds the run's id
        run = started("offline")
        tell(f"is not online ({_one_line(error)}); recording offline, upload later with: wandb sync {Path(run.dir).parent}")
    # W&B's own step may only rise; ours is a value, so that a resumed run may go back.
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return run


def _mode(asked: str) -> str:
    """`auto` is decided here, from the key alone: asking the network could take seconds."""
    if asked != "auto":
        return asked
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    import wandb

    return "online" if os.environ.get("WANDB_API_KEY") or wandb.api.api_key else "offline"


def _follow(path: Path, offset: int) -> Iterator[dict[str, Any]]:
    """The lines of a growing file after `offset`, until standard input ends and they have all been given."""
    with path.open("rb") as file:
        file.seek(offset)
        started_line, ended = b"", False
        while not ended:
            ended = bool(select.select([sys.stdin], [], [], _POLL_SECONDS)[0])
            for text in file:
                started_line += text
                if started_line.endswith(b"\n"):
                    with suppress(json.JSONDecodeError):  # torn by a kill: every reader drops it
                        yield json.loads(started_line)
                    started_line = b""


def _log(run: Any, line: dict[str, Any]) -> None:
    """Metrics keep their names, with the kind of line in front: `train/loss`."""
    values = {f"{line['kind']}/{name}": value for name, value in line.items() if isinstance(value, (int, float)) and name != "step"}
    if values:
        run.log({"step": line.get("step", 0), **values}, commit=True)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


if __name__ == "__main__":
    sys.exit(main())
