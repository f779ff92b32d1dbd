"""Follows a run's metrics.jsonl and hands its lines to Weights & Biases, in a process of its own.

`tracker.py` starts this file with one JSON object on standard input; the end of standard input is the end of the run. Whatever the
user has to hear is a line on standard output. W&B may wait, print, hang or die here: the run does not depend on it, and the records
cannot differ from the file, because they are read from it. The file imports nothing of this package, so that it starts wherever it lies;
`sync.py` uses its parts.

W&B's own step, which may only rise, is a line's number in the file. So the processes of a resumed run do not collide there, and W&B gets
what it does not have yet, and nothing twice. What is drawn is over the axes, which are values like all others and may go back.
"""

import io
import json
import os
import select
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any

AXES = ("step", "samples", "tokens", "wall_seconds")
"""On every row under these names; the first is what W&B draws over unless told otherwise."""
SEED_GROUP = "seed_group"
"""In a run's config there: the same for runs that differ in their seed alone."""
_POLL_SECONDS = 0.5
_UPLOAD_SECONDS = 45.0
"""For what is still to be uploaded at the end of an online run."""
_ALERT_SECONDS = 3600.0
"""Of the run's time, at least, between two alerts on skipped steps."""
_SETTINGS: dict[str, Any] = {
    "program": "pretrain",
    "console": "off",
    "silent": True,
    "disable_git": True,
    "disable_code": True,
    "x_disable_stats": True,
    "x_transaction_log_flush_interval": 1.0,  # seconds that are lost at most where this machine is lost
    "init_timeout": 30.0,
}

Line = dict[str, Any]


def main() -> int:
    """Follow one run to its end. Whatever can be told is told with exit code 0."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # Slurm sends them to all: the run decides when it ends
    tell = _take_output()
    job = json.loads(sys.stdin.buffer.readline())
    metrics, init = Path(job["metrics"]), job["init"]
    try:
        own = metrics.read_bytes()[: job["offset"]].count(b"\n")  # the first line of this process
        run, mode = _start(init, tell)
    except Exception as error:
        tell(f"did not start ({one_line(error)}); going on without it, metrics.jsonl has everything")
        return 0
    first = run.starting_step if mode == "online" else own  # what a process before this one could not upload is uploaded now
    rows, alerts, line = Rows(), Alerts(run), None
    try:
        for number, line in _follow(metrics):
            row = rows.of(line)
            if number >= first:
                run.log(row, step=number, commit=True)
            if number >= own:
                alerts.see(line)
        run.finish(exit_code=exit_code_after(line))
    except TimeoutError:
        tell(f"has not taken everything after {_UPLOAD_SECONDS:.0f} s; upload the rest with: {upload_command(init['dir'])}")
    except Exception as error:
        tell(f"stopped ({one_line(error)}); going on without it, metrics.jsonl has everything")
    return 0


def begin(init: dict[str, Any], mode: str, **settings: Any) -> Any:
    """A W&B run in `mode` with its axes: `init` are arguments of `wandb.init`, `settings` join ours. Raises whatever W&B raises."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    known = {name: value for name, value in (_SETTINGS | settings).items() if name in wandb.Settings.model_fields}  # older ones lack some
    run = wandb.init(**init | {"mode": mode, "resume": "allow", "settings": wandb.Settings(**known)})
    for axis in AXES:
        run.define_metric(axis)
    run.define_metric("*", step_metric=AXES[0])
    return run


def has_key() -> bool:
    """Whether W&B can be asked online: a key in the environment, or one of `wandb login`."""
    import wandb

    with redirect_stderr(io.StringIO()):  # it recommends `wandb.login`, which does not look for a key where WANDB_MODE=offline
        return bool(os.environ.get("WANDB_API_KEY") or wandb.api.api_key)


class Rows:
    """What lines of metrics.jsonl are in W&B."""

    def __init__(self) -> None:
        self._axes: dict[str, float] = dict.fromkeys(AXES, 0)

    def of(self, line: Line) -> dict[str, float]:
        """Every number under its name with the kind of line in front, `train/loss`, and the axes: where one is lacking, its last value.
        A list has one value for each rank: `memory/rank_0/weights_bytes`."""
        lists = {name: values for name, values in line.items() if isinstance(values, list)}
        numbers = {f"rank_{rank}/{name}": value for name, values in lists.items() for rank, value in enumerate(values)} | line
        numbers = {name: value for name, value in numbers.items() if isinstance(value, (int, float))}
        self._axes = {axis: numbers.get(axis, before) for axis, before in self._axes.items()}
        return self._axes | {f"{line['kind']}/{name}": value for name, value in numbers.items() if name not in AXES}


class Alerts:
    """What somebody should hear of, wherever W&B sends it: skipped steps, the first and then at most one in an hour, and divergence."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self._told_seconds: float | None = None
        self._untold = 0

    def see(self, line: Line) -> None:
        """Alert where the line gives reason to."""
        if line["kind"] == "skip" and not _is_loss_scale_search(line):
            self._untold += 1
            self._skipped(line, line.get("wall_seconds") or 0.0)
        elif line["kind"] == "end" and line.get("diverged"):
            self._run.alert("Run diverged", f"Too many steps in a row were skipped at step {line['step']}; the run has ended.", "ERROR")

    def _skipped(self, line: Line, now_seconds: float) -> None:
        if self._told_seconds is not None and now_seconds - self._told_seconds < _ALERT_SECONDS:
            return
        why = ", ".join(filter(None, ((line.get("reason") or "").replace("_not_", " is not "), line.get("parameter"))))
        more = f", {self._untold} since the last alert" if self._untold > 1 else ""
        self._run.alert("Step skipped", f"Step {line['step']} was skipped ({why}){more}.", "WARN")
        self._told_seconds, self._untold = now_seconds, 0


def _is_loss_scale_search(line: Line) -> bool:
    """fp16's ordinary skips: the loss scale, above 1 still, was too large."""
    return line.get("reason") == "gradient_not_finite" and (line.get("loss_scale") or 1.0) > 1.0


def exit_code_after(line: Line | None) -> int:
    """What W&B is told of a run with this last line: 0 finished, 1 cut off or diverged."""
    return 0 if line and line["kind"] == "end" and not line.get("diverged") else 1


def upload_command(folder: str) -> str:
    """For the user, to upload what W&B does not have of the run in `folder`."""
    return f"python -m pretrain.sync {shlex.quote(folder)}"


def one_line(error: BaseException) -> str:
    """An error of W&B's for the user, without the key."""
    text = " ".join(str(error).split()) or type(error).__name__
    if key := os.environ.get("WANDB_API_KEY"):
        text = text.replace(key, "(the key)")
    return text if len(text) <= 200 else f"{text[:197]}..."


def _take_output() -> Callable[[str], None]:
    """Keep standard output for what the user has to hear; what W&B and its service print there goes nowhere."""
    channel, nowhere = os.fdopen(os.dup(1), "w", buffering=1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    return lambda text: print(text, file=channel)


def _start(init: dict[str, Any], tell: Callable[[str], None]) -> tuple[Any, str]:
    """A W&B run and its mode; offline where it cannot be had online."""
    asked, limits = init["mode"], {"finish_timeout": _UPLOAD_SECONDS, "finish_timeout_raises": True}
    mode = _mode(asked)
    try:
        return begin(init, mode, **limits), mode
    except Exception as error:
        if mode != "online":
            raise
        import wandb

        wandb.teardown()  # the service still holds the run's id
        run = begin(init, "offline", **limits)
        tell(f"is not online ({one_line(error)}); recording offline, upload later with: {upload_command(init['dir'])}")
        return run, "offline"


def _mode(asked: str) -> str:
    """`auto` is decided here, from the key alone: asking the network could take seconds."""
    if asked != "auto":
        return asked
    return os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")


def _follow(path: Path) -> Iterator[tuple[int, Line]]:
    """The lines of a growing file with their numbers, until standard input ends and they have all been given."""
    with path.open("rb") as file:
        number, started_line, ended = 0, b"", False
        while not ended:
            ended = bool(select.select([sys.stdin], [], [], _POLL_SECONDS)[0])
            for text in file:
                started_line += text
                if started_line.endswith(b"\n"):
                    with suppress(json.JSONDecodeError):  # torn by a kill: every reader drops it
                        yield number, json.loads(started_line)
                    started_line = b""
                    number += 1


if __name__ == "__main__":
    sys.exit(main())
