"""From `python -m pretrain` to the end of the first step, by part: the command, run several times for one step each.

    python scripts/bench_start.py [--runs 5] [--output scripts/bench_results/DATE_start.md] +experiment=bert_32k model=bert_mini \\
        train.precision=fp32 train.global_batch_size=64 data=prepared data.path=prepared/wiki

What follows are settings, as for `python -m pretrain`. One run more comes first: it fills the caches, and prepares data that are not.
Each run has a folder of its own and, unless W&B's variables say otherwise, records offline. Prints Markdown: medians by part, every run.
"""

import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path

import benchmark

from pretrain.metrics import last, read_metrics

LIBRARIES = ("torch", "transformers", "deepspeed", "wandb", "hydra-core")
BEGUN, DONE = "**to the beginning of the first step**", "**to its end**"
CPU = "CPU time of the whole command, with evaluation and checkpoint"


def measure(settings: list[str], runs: int) -> dict[str, list[float]]:
    """Seconds of each part in every run but the first, the two sums, and the CPU time of all the processes of a run."""
    found: dict[str, list[float]] = {}
    for number in range(runs + 1):
        with tempfile.TemporaryDirectory() as folder:
            cpu_before = cpu_seconds()
            command = [*settings, "train.num_steps=1", "run.export=false", f"run.dir={folder}", "run.name=start"]
            environment = {"WANDB_MODE": "offline"} | os.environ
            subprocess.run([sys.executable, "-m", "pretrain", *command], env=environment, stdout=sys.stderr, check=True)
            line = last(read_metrics(Path(folder) / "start" / "metrics.jsonl"), "startup")
            assert line is not None
            parts = {name: seconds for name, seconds in line.items() if name.endswith("_seconds") and name != "wall_seconds"}
            whole = sum(parts.values())
            sums = {BEGUN: whole - parts["first_step_seconds"], DONE: whole, CPU: cpu_seconds() - cpu_before}
        named = {name.removesuffix("_seconds").replace("_", " "): seconds for name, seconds in parts.items()}
        for name, seconds in (named | sums).items() if number else ():
            found.setdefault(name, []).append(seconds)
    return found


def cpu_seconds() -> float:
    """User and system time of all the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report(found: dict[str, list[float]]) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    lines = [
        "# From the command to the end of the first step",
        "",
        f"`python {shlex.join(sys.argv)}`",
        "",
        f"{date.today().isoformat()}, {benchmark.processor()}, {versions}, Python {platform.python_version()}; medians of {len(found[DONE])}"
        " runs after one of warm-up. The parts are rank 0's, and those of the process that started it.",
        "",
        "| part | median s | every run, s |",
        "|---|---|---|",
    ]
    for name, seconds in found.items():
        lines.append(f"| {name} | {statistics.median(seconds):.2f} | {' '.join(f'{value:.2f}' for value in seconds)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = benchmark.parser(__doc__)
    parser.add_argument("settings", nargs="+", metavar="key=value", help="of the run: the model, the batch, where the data are")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_intermixed_args()
    text = report(measure(arguments.settings, arguments.runs))
    benchmark.publish(text, arguments.output)


if __name__ == "__main__":
    main()
