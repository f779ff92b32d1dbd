"""Momentum in float32, bfloat16 and 8 bits: the same training with each, over several seeds, by `python -m pretrain`.

    python scripts/bench_momentum.py --texts texts/wiki-train-00.txt.bz2 [--steps 700] [--seeds 0 1 2] [--runs runs/momentum] \\
        [--output scripts/bench_results/DATE_momentum.md] [key=value ...]

The demo's model and batch (bert_tiny, 256 sequences of 32 tokens) on the given text files, with a vocabulary of 2,048 pieces of words;
further settings are those of `python -m pretrain`. Seeds draw the weights, the order of the text, the masks and the rounding. Runs are
kept in `--runs`, and what is finished there is not trained again: a benchmark that was stopped goes on. Prints Markdown: final losses and
their differences with Welch's interval, and the curves beside the range of float32's seeds.
"""

import argparse
import os
import platform
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import benchmark

from pretrain.metrics import last, read_metrics
from pretrain.report.significance import difference

DTYPES = ("float32", "bfloat16", "int8")
LIBRARIES = ("torch", "transformers", "deepspeed")
EVALUATIONS = 7


@dataclass(frozen=True)
class Run:
    """What one run logged."""

    plan: dict
    training: dict[int, float]
    """Loss by step."""
    validation: dict[int, float]

    @property
    def final(self) -> float:
        return self.validation[max(self.validation)]


def train(dtype: str, seed: int, settings: list[str], runs: Path) -> Run:
    """One ordinary run, or what is there of it from before."""
    name = f"{dtype}_seed{seed}"
    command = [sys.executable, "-m", "pretrain", *settings, f"optimizer.momentum_dtype={dtype}", f"run.seed={seed}"]
    command += [f"run.dir={runs}", f"run.name={name}"]
    subprocess.run(command, env={"WANDB_MODE": "offline"} | os.environ, stdout=sys.stderr, check=True)
    lines = read_metrics(runs / name / "metrics.jsonl")
    start = last(lines, "start")
    assert start is not None
    losses = {kind: {line["step"]: line["loss"] for line in lines if line["kind"] == kind} for kind in ("train", "eval")}
    return Run(start["plan"], losses["train"], losses["eval"])


def settings_of(arguments: argparse.Namespace) -> list[str]:
    every = max(1, arguments.steps // EVALUATIONS)
    return [
        "+experiment=demo",
        "data=text",
        f"data.paths=[{','.join(str(path) for path in arguments.texts)}]",
        "tokenizer.vocab_size=2048",
        "tracker=none",
        "run.export=false",
        f"train.num_steps={arguments.steps}",
        "train.log_every_steps=10",
        f"train.eval_every_steps={every}",
        "train.eval_samples=4096",
        f"train.checkpoint_every_steps={arguments.steps}",
        *arguments.settings,
    ]


def report(found: dict[str, dict[int, Run]], settings: list[str]) -> str:
    exact = found["float32"]
    plan = next(iter(exact.values())).plan
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    lines = [
        "# Momentum in float32, bfloat16 and 8 bits",
        "",
        f"`python {shlex.join(sys.argv)}`",
        "",
        f"{date.today().isoformat()}, {benchmark.processor()}, {versions}, Python {platform.python_version()}. {plan['model']}"
        f" ({plan['parameters']:,} parameters, vocabulary {plan['vocabulary']:,}), {plan['objective']}, {plan['optimizer']} lr"
        f" {plan['learning_rate']:g}, {plan['ranks']} rank(s), ZeRO stage {plan['zero_stage']}, {plan['weights_dtype']}, global batch"
        f" {plan['global_batch_size']:,} x {plan['sequence_length']} tokens, {plan['steps']:,} steps; {len(exact)} seeds with each. All"
        f" runs were made with `{shlex.join(settings)}`.",
        "",
        *_final(found),
        "",
        "Validation loss by step: mean over the seeds, in brackets where it lies outside of the range of float32's seeds.",
        "",
        *_curves(found, [run_step for run_step in next(iter(exact.values())).validation], lambda run: run.validation),
        "",
        *_verdicts(found),
    ]
    return "\n".join(lines) + "\n"


def _final(found: dict[str, dict[int, Run]]) -> list[str]:
    seeds = list(found["float32"])
    lines = [
        "| momentum | state, bytes per parameter | final validation loss of each seed | mean | std | minus float32, 95 % (Welch) |"
        " minus float32 of the same seed |",
        "|---|---|---|---|---|---|---|",
    ]
    reference = [run.final for run in found["float32"].values()]
    for dtype, runs in found.items():
        plan, scores = runs[seeds[0]].plan, [run.final for run in runs.values()]
        size = plan["optimizer_state_bytes"] * plan["ranks"] / plan["parameters"]
        against, paired = difference(scores, reference), [mine - theirs for mine, theirs in zip(scores, reference, strict=True)]
        welch = f"{against.mean:+.4f}" + (f" [{against.low:+.4f}, {against.high:+.4f}]" if against.low is not None else "")
        cells = [welch, " ".join(f"{value:+.4f}" for value in paired)] if dtype != "float32" else ["-", "-"]
        spread = f"{statistics.stdev(scores):.4f}" if len(scores) > 1 else "-"
        each = " ".join(f"{score:.4f}" for score in scores)
        lines.append(f"| {dtype} | {size:.3f} | {each} | {statistics.mean(scores):.4f} | {spread} | {cells[0]} | {cells[1]} |")
    return lines


def _curves(found, steps, curve) -> list[str]:
    lines = [f"| step | float32, lowest to highest | {' | '.join(found)} |", "|---|---|" + "---|" * len(found)]
    for step in steps:
        low, high = _range(found, step, curve)
        cells = []
        for runs in found.values():
            mean = statistics.mean(curve(run)[step] for run in runs.values())
            cells.append(f"{mean:.4f}" if low <= mean <= high else f"({mean:.4f})")
        lines.append(f"| {step} | {low:.4f} to {high:.4f} | {' | '.join(cells)} |")
    return lines


def _verdicts(found: dict[str, dict[int, Run]]) -> list[str]:
    lines = []
    for dtype in DTYPES[1:]:
        runs = found[dtype]
        inside = []
        for curve in (lambda run: run.validation, lambda run: run.training):
            steps = list(curve(next(iter(runs.values()))))
            means = [(step, statistics.mean(curve(run)[step] for run in runs.values())) for step in steps]
            within = [low <= mean <= high for (step, mean) in means for low, high in [_range(found, step, curve)]]
            inside.append(f"{sum(within)} of {len(within)}")
        against = difference([run.final for run in runs.values()], [run.final for run in found["float32"].values()])
        real = {None: "cannot be judged", True: "is more than the seeds explain", False: "is within what the seeds explain"}[
            against.is_real
        ]
        lines.append(
            f"- {dtype}: its mean lies within the range of float32's seeds at {inside[0]} evaluations and {inside[1]} logged training"
            f" steps; the final difference {against.mean:+.4f} {real}."
        )
    return lines


def _range(found, step: int, curve) -> tuple[float, float]:
    of_seeds = [curve(run)[step] for run in found["float32"].values()]
    return min(of_seeds), max(of_seeds)


def main() -> None:
    parser = benchmark.parser(__doc__)
    parser.add_argument("settings", nargs="*", metavar="key=value", help="of every run")
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="text files to train on")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/momentum"))
    arguments = parser.parse_intermixed_args()
    settings = settings_of(arguments)
    found = {dtype: {seed: train(dtype, seed, settings, arguments.runs) for seed in arguments.seeds} for dtype in DTYPES}
    benchmark.publish(report(found, settings), arguments.output)


if __name__ == "__main__":
    main()
