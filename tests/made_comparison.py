"""Comparisons without training: a world that says how each run would end, and the run folders of it."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pretrain.compare import running
from pretrain.compare.composing import Comparison, read_command
from pretrain.compare.rows import Row
from pretrain.compare.search import trial_named
from pretrain.compare.summary import Summary
from pretrain.config.serialise import to_yaml
from pretrain.exit_codes import DONE
from pretrain.sweep.runs import Run
from tests.made_curves import lines_of, write_lines

World = Callable[[str, float, int], float | None]
"""(variant, learning rate, seed) -> final validation loss; None: diverges."""

SETTINGS = ("train.num_steps=40", "train.global_batch_size=8", "train.micro_batch_size=8", "launch.num_processes=1", "tracker=none")
"""40 steps of 8 sequences of 32 tokens."""
OPTIMA = {"came": (4e-4, 2.0), "adamw": (1e-3, 2.1), "lamb": (1e-2, 2.1)}
"""Learning rate and loss of each where `world` is at its best."""
GRIDS = ("compare.lrs.came=[2e-4,4e-4,8e-4]", "compare.lrs.adamw=[5e-4,1e-3,2e-3]", "compare.lrs.lamb=[5e-3,1e-2,2e-2]")
"""In each of which the optimum lies inside."""
THREE = ("compare.optimizers=[came,adamw,lamb]", "compare.seeds=4", *GRIDS)
RUN = "came-lr_0.0004-seed_2"
"""One of the runs that `THREE` ask for."""


def world(variant: str, lr: float, seed: int) -> float | None:
    """CAME 0.1 nats better than AdamW, LAMB exactly as good; noise of 0.01 between seeds; far too high rates diverge."""
    optimum, loss = OPTIMA[variant]
    return None if lr > 7 * optimum else loss + 0.1 * abs(np.log2(lr / optimum)) + random.Random(f"{variant} {seed}").gauss(0, 0.01)


def make_comparison(folder: Path, world: World, *settings: str, monkeypatch: pytest.MonkeyPatch) -> Comparison:
    """The comparison `compare-demo` below `folder`, run to its end in `world` by the product's own loop."""
    asked = read_command([f"run.dir={folder}", *SETTINGS, *settings], None)
    started: list[str] = []

    def start_all(runs: list[Run], launcher: None) -> dict[str, int | None]:
        for run in runs:
            started.append(run.name)
            write_run(run, world)
        return {run.name: DONE for run in runs}

    monkeypatch.setattr(running, "start_all", start_all)
    with running.begun(asked, None) as comparison:
        assert running.run_all(comparison, None) == DONE
    assert len(started) == len(set(started)), "no run is started twice"
    return comparison


def write_run(run: Run, world: World) -> None:
    """What training would leave: its loss falls in a line, 3 nats in all."""
    trial = trial_named(run.name)
    loss = world(trial.variant, trial.lr, trial.seed)
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_text(to_yaml(run.config))
    train = run.config.train
    lines = lines_of(train.num_steps, train.eval_every_steps, 9.0 if loss is None else loss, plan={"ranks": 1})
    for line in lines:
        if "tokens" in line:
            line["tokens"] = line["step"] * train.global_batch_size * run.config.data.max_seq_length
        line |= {"step_seconds": 0.5} if line["kind"] == "train" else {}
    end = {"kind": "end", "step": train.num_steps} | ({"diverged": True} if loss is None else {})
    write_lines(run.folder / "metrics.jsonl", [*lines, end])


def row(summary: Summary, name: str) -> Row:
    """Of one variant."""
    return next(row for row in summary.rows if row.variant == name)


def changed(made: Comparison, folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of the comparison in which one file holds something else."""
    shutil.copytree(made.folder, folder)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    return folder
