"""What Weights & Biases has recorded offline, read back by its own command."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from pretrain.metrics import Line


def recorded(run_folder: Path) -> list[list[dict[str, Any]]]:
    """The records of each offline run that was begun in a run folder, oldest first; each as `wandb leet inspect` prints it."""
    runs = sorted((run_folder / "wandb").glob("offline-run-*"))
    assert runs
    return [_inspect(run) for run in runs]


def _inspect(run: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)], capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def rows(records: list[dict[str, Any]]) -> list[dict[str, float]]:
    """What was logged, in its order, without W&B's own values."""
    found = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in found]


def steps(records: list[dict[str, Any]]) -> list[int]:
    """W&B's own step of each row."""
    return [int(record["history"]["step"]["num"]) for record in records if record["type"] == "history"]


def rows_of(lines: list[Line]) -> list[dict[str, float]]:
    """What lines of metrics.jsonl should have become: every number, its kind in front, each rank's of a list, and the last known value of
    each axis."""
    axes = {"step": 0, "samples": 0, "tokens": 0, "wall_seconds": 0}
    found = []
    for line in lines:
        axes |= {name: line[name] for name in axes if name in line}
        numbers = {name: value for name, value in line.items() if isinstance(value, (int, float)) and name not in axes}
        for name, values in line.items():
            if line["kind"] == "memory" and isinstance(values, list):
                numbers |= {f"rank_{rank}/{name}": value for rank, value in enumerate(values)}
        found.append(axes | {f"{line['kind']}/{name}": value for name, value in numbers.items()})
    return found
