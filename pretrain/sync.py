"""`python -m pretrain.sync RUN ...`: upload runs to Weights & Biases by replaying the lines that stand in their metrics.jsonl.

One run there for one run here, under the id in its `wandb_id`, however often it was stopped, resumed or moved, and whatever W&B recorded
meanwhile. A second sync uploads the lines behind the last that W&B has (its own step is the line's number in the file): none, or those
that the run has written since; what is there stays as it is. What a run had uploaded itself before a resume repeated it stays there too,
as a second point over the same step. A run that was deleted in W&B does not come back under its id; without the file `wandb_id` it
gets a new one. Alerts are the run's own affair: none is sent.
"""

import json
import os
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain.command import Parser, run_command
from pretrain.errors import UserError
from pretrain.user_path import user_path

_DESCRIPTION = """\
Upload runs to Weights & Biases from their metrics.jsonl, each as one run without gaps. Again for the same run: what is new is added.

examples:
  python -m pretrain.sync runs/demo
  python -m pretrain.sync runs/* --project came --entity my-team
  python -m pretrain.sync runs/demo --offline      writes a folder in runs/demo/wandb/ for `wandb sync`, and contacts nobody
"""
_INIT_SECONDS = 30.0
"""For an answer of the server."""
_UPLOAD_SECONDS = 1800.0
"""For what is still on its way when all lines have been read."""


@dataclass(frozen=True)
class Recorded:
    """A run as its folder has it."""

    path: Path
    lines: list[tuple[int, dict[str, Any]]]
    """Those that stand, with their numbers in the file."""
    init: dict[str, Any]
    """Arguments of `wandb.init`."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return run_command(_run, arguments)


def _run(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    runs = [_read(user_path(run), options.project, options.entity) for run in options.runs]
    os.environ.setdefault("WANDB_SILENT", "true")
    if not options.offline:
        _check_key()
    for run in runs:
        print(f"{run.path}: {_upload(run, options.offline)}")
    return 0


def _parser() -> Parser:
    parser = Parser("python -m pretrain.sync", description=_DESCRIPTION)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder")
    parser.add_argument("--project", help="W&B's project; without it the run's tracker.project")
    parser.add_argument("--entity", help="a user or team of W&B; without it the run's tracker.entity, else your own default")
    parser.add_argument("--offline", action="store_true", help="write an offline folder instead of uploading")
    return parser


def _read(path: Path, project: str | None, entity: str | None) -> Recorded:
    """Raises UserError where `path` does not hold a run that has begun."""
    from pretrain.config.schema import WandbConfig
    from pretrain.config.serialise import from_yaml
    from pretrain.metrics import read_numbered
    from pretrain.run_folder import RunFolder
    from pretrain.tracker import wandb_init

    folder = RunFolder(path)
    if not folder.config.is_file():
        raise UserError(f"{path} is no run's folder (it has no config.yaml); give one, such as runs/NAME, or several")
    try:
        config = from_yaml(folder.config.read_text(encoding="utf-8"))
        lines = read_numbered(folder.metrics)
        if not lines:
            raise UserError(f"{path} has no metrics.jsonl with lines in it; give the folder of a run that has begun")
        tracker = config.tracker if isinstance(config.tracker, WandbConfig) else WandbConfig()
        return Recorded(path, lines, wandb_init(config, folder, _facts(lines), project or tracker.project, entity or tracker.entity))
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read or written ({error.strerror}); see to its permissions") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{folder.config} is not a config.yaml; give the folder of a run") from error


def _facts(lines: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """What the run was last made with."""
    made = [line for _, line in lines if line["kind"] in ("start", "resume")]
    return {name: line[name] for line in made for name in ("plan", "versions", "git") if name in line}


def _check_key() -> None:
    from pretrain import wandb_follower

    try:
        if wandb_follower.has_key():
            return
    except Exception as error:
        raise UserError(f"wandb does not work ({wandb_follower.one_line(error)}); install it again") from error
    raise UserError("W&B has no API key; run `wandb login`, set WANDB_API_KEY, or give --offline")


def _upload(run: Recorded, offline: bool) -> str:
    """Replay one run; what became of it, in words. Raises UserError where W&B does not take it."""
    from pretrain import wandb_follower

    with tempfile.TemporaryDirectory() as beside:
        try:
            settings = {"init_timeout": _INIT_SECONDS, "finish_timeout": _UPLOAD_SECONDS, "finish_timeout_raises": True}
            init = run.init if offline else run.init | {"dir": beside}
            there = wandb_follower.begin(init, "offline" if offline else "online", **settings)
            new = _replay(run, there)
            there.finish(exit_code=wandb_follower.exit_code_after(run.lines[-1][1]))
        except Exception as error:
            _give_up()
            mend = "install wandb again" if offline else "see to the network, the key and the project, and give the same command again"
            raise UserError(f"W&B does not take {run.path} ({wandb_follower.one_line(error)}); {mend}") from error
        where = Path(there.dir).parent
        counted = f"{new:,} of {len(run.lines):,} lines"
        if offline:
            return f"{counted} written to {where}; upload them with: wandb sync {where}"
        return f"{counted} uploaded to {there.url}" + (", which had the others" if new < len(run.lines) else "")


def _replay(run: Recorded, there: Any) -> int:
    """Log the lines that W&B does not have; how many they are."""
    from pretrain.data.progress import Progress
    from pretrain.wandb_follower import Rows

    rows, new = Rows(), 0
    sizes = [len(json.dumps(line)) for _, line in run.lines]
    with Progress(str(run.path), sum(sizes)) as progress:
        for (number, line), size in zip(run.lines, sizes, strict=True):
            row = rows.of(line)
            if number >= there.starting_step:
                there.log(row, step=number, commit=True)
                new += 1
            progress.advance(size)
    return new


def _give_up() -> None:
    """End W&B's service, which may still hold the run; where it has died itself, that is no news."""
    if wandb := sys.modules.get("wandb"):
        with suppress(Exception):
            wandb.teardown(exit_code=1)


if __name__ == "__main__":
    sys.exit(main())
