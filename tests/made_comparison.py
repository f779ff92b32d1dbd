"""Comparisons without training: a world that says how a run with some optimizer, learning rate and seed would end, and run folders of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.compare import running
from pretrain.compare.composing import Comparison, read_command
from pretrain.compare.search import trial_named
from pretrain.config.serialise import to_yaml
from pretrain.exit_codes import DONE
from pretrain.sweep.runs import Run
from tests.made_curves import lines_of, write_lines

World = Callable[[str, float, int], float | None]
"""(variant, learning rate, seed) -> final validation loss; None: diverges."""

SETTINGS = ("train.num_steps=40", "train.global_batch_size=8", "train.micro_batch_size=8", "launch.num_processes=1", "tracker=none")
"""40 steps of 8 sequences of 32 tokens."""


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
