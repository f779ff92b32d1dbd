"""Run folders with made curves and no training: config.yaml and metrics.jsonl, as the harness writes them."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pretrain.metrics import Line
from pretrain.report.run import AXES, Run, Track

END = {"kind": "end"}


def make_curves(
    folder: Path,
    optimizer: str = "came",
    lr: float = 1e-3,
    seed: int = 0,
    steps: int = 40,
    every: int = 10,
    final_loss: float = 2.0,
    objective: str = "mlm",
    ending: Line | None = END,
    quiet_seconds: float = 1e6,
    **settings: Any,
) -> Path:
    """A run of `steps` steps, evaluated each `every`, whose loss falls to `final_loss`; `ending` is its last line, None for none.

    `quiet_seconds`: so long ago was the last line written. `settings` are further ones, as `train__grad_clip=1.0`.
    """
    folder.mkdir(parents=True)
    config: dict[str, Any] = {
        "run": {"name": folder.name, "dir": str(folder.parent), "seed": seed},
        "train": {"num_steps": steps, "global_batch_size": 8},
        "model": {"name": "gpt2_tiny" if objective == "clm" else "bert_tiny"},
        "objective": {"kind": objective},
        "optimizer": {"name": optimizer, "lr": lr},
        "zero": {"stage": 2, "extra": {}},
    }
    for name, value in settings.items():
        part, _, key = name.partition("__")
        config.setdefault(part, {})[key] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    lines = lines_of(steps, every, final_loss, objective, {"ranks": 2, "optimizer": optimizer.upper(), "steps": steps})
    write_lines(folder / "metrics.jsonl", [*lines, *([_at(steps) | ending] if ending else [])], quiet_seconds)
    return folder


def lines_of(steps: int, every: int, final_loss: float, objective: str = "mlm", plan: Line | None = None) -> list[Line]:
    lines: list[Line] = [{"kind": "start", "step": 0, "unigram_loss": 5.0, "data_fingerprint": "f" * 64, "plan": plan or {}}]
    for step in range(1, steps + 1):
        loss = final_loss + 3.0 * (steps - step) / steps
        memory = {"memory_params_bytes": 4096, "memory_optimizer_bytes": 2048, "memory_peak_bytes": 10240}
        lines.append(_at(step) | {"kind": "train", "loss": loss, "lr": 1e-3, "tokens_per_second": 640.0, "mfu": None, **memory})
        if step % every == 0:
            score = {"perplexity": math.exp(loss)} if objective == "clm" else {"mlm_accuracy": 1 / loss}
            lines.append(_at(step) | {"kind": "eval", "loss": loss, **score})
    return lines


def _at(step: int) -> Line:
    return {"step": step, "samples": 8 * step, "tokens": 8 * 16 * step, "wall_seconds": 36.0 * step, "skipped_steps": 0}


def write_lines(path: Path, lines: list[Line], quiet_seconds: float = 1e6) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    written = time.time() - quiet_seconds
    os.utime(path, (written, written))


def long_run(name: str, steps: int, metrics: tuple[str, ...], seed: int = 0, optimizer: str = "came") -> Run:
    """A run of `steps` logged steps with noise in every metric, as read; in memory alone."""
    rng = np.random.default_rng([seed, len(name), *name.encode()])
    at = np.arange(1, steps + 1, dtype=np.float64)

    def track(at: np.ndarray, names: tuple[str, ...]) -> Track:
        axes = dict(zip(AXES, (at, at * 4096, np.cumsum(rng.uniform(0.9, 1.1, len(at)))), strict=True))
        return Track(axes, {name: np.exp(-at / steps) + rng.normal(0, 0.05, len(at)) for name in names})

    settings = {"optimizer.name": optimizer, "optimizer.lr": 1e-3, "objective.kind": "mlm", "run.seed": seed, "train.num_steps": steps}
    made_with = {"ranks": 1, "name": name}
    return Run(
        name, settings, made_with, track(at, metrics), track(at[::200], ("loss", "mlm_accuracy")), "finished", steps, steps, 1.0, 0, None
    )
