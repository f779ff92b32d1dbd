"""What Weights & Biases costs a training step: the same run with tracker=wandb (offline) and tracker=none, by turns.

    python scripts/bench_tracker.py [--rounds 5] [--steps 40] [--output scripts/bench_results/DATE_tracker.md] [key=value ...]

The run is bert_mini on the text that Python carries, one rank, 16 sequences of 128 tokens per step, every step logged: the dearest case.
Further settings are those of `python -m pretrain`. A step's time is that from one train line to the next, so it holds data, update and
logging; `record` is what the run itself spends on a line: the file, the tracker and the terminal. One run more comes first and is not
counted. The tracker's own process works on the other cores; where there are none, its CPU time is part of the step's. Prints Markdown.
"""

import argparse
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path

import benchmark

SETTINGS = (
    "model=bert_mini objective=mlm data=stdlib tokenizer.vocab_size=8192 data.max_seq_length=128 train.global_batch_size=16 "
    "train.micro_batch_size=16 train.log_every_steps=1 train.eval_every_steps=0 train.eval_samples=16 train.checkpoint_every_steps=0 "
    "schedule=constant run.export=false launch.num_processes=1"
).split()
TRACKERS = {"none": ["tracker=none"], "wandb": ["tracker=wandb", "tracker.mode=offline"]}
LIBRARIES = ("torch", "deepspeed", "wandb")
WARM_UP_STEPS = 5
"""Of each run; not counted."""


@dataclass
class Measured:
    """One of the two, over all rounds."""

    step_seconds: list[list[float]] = field(default_factory=list)
    """By round."""
    record_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    """Of each whole command, the tracker's processes included."""


def measure(settings: list[str], rounds: int, steps: int) -> dict[str, Measured]:
    found = {tracker: Measured() for tracker in TRACKERS}
    run("none", settings, WARM_UP_STEPS + 2, Measured())
    for number in range(rounds):
        order = list(TRACKERS) if number % 2 == 0 else list(reversed(TRACKERS))
        for tracker in order:
            print(f"round {number + 1} of {rounds}: tracker={tracker}", file=sys.stderr, flush=True)
            run(tracker, settings, steps + WARM_UP_STEPS, found[tracker])
    return found


def run(tracker: str, settings: list[str], steps: int, measured: Measured) -> None:
    """One training in a process of its own."""
    from pretrain.metrics import read_metrics

    with tempfile.TemporaryDirectory() as folder:
        last = ["run.name=it", f"run.dir={folder}", f"train.num_steps={steps}", *TRACKERS[tracker]]
        before = cpu_seconds()
        command = [sys.executable, __file__, "--train", f"{folder}/record.json", *SETTINGS, *settings, *last]
        done = subprocess.run(command, env=os.environ | {"WANDB_MODE": "offline"}, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        measured.cpu_seconds.append(cpu_seconds() - before)
        measured.record_seconds += json.loads(Path(folder, "record.json").read_text())[WARM_UP_STEPS:]
        lines = [line for line in read_metrics(Path(folder, "it", "metrics.jsonl")) if line["kind"] == "train"]
    times = [line["wall_seconds"] for line in lines]
    measured.step_seconds.append([after - before for before, after in zip(times, times[1:], strict=False)][WARM_UP_STEPS - 1 :])


def train(times: Path, settings: list[str]) -> int:
    """`python -m pretrain SETTINGS`, with a note of how long each train line took to record."""
    from pretrain.__main__ import main as pretrain
    from pretrain.recorder import Recorder

    seconds: list[float] = []
    record = Recorder.record

    def timed(recorder: Recorder, kind: str, *line: object, **values: object) -> None:
        begun = time.perf_counter()
        record(recorder, kind, *line, **values)
        if kind == "train":
            seconds.append(time.perf_counter() - begun)

    Recorder.record = timed
    code = pretrain(settings)
    times.write_text(json.dumps(seconds))
    return code


def cpu_seconds() -> float:
    """User and system time of all the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report(found: dict[str, Measured], settings: list[str]) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    steps = {tracker: [second for round_ in measured.step_seconds for second in round_] for tracker, measured in found.items()}
    medians = {tracker: statistics.median(seconds) for tracker, seconds in steps.items()}
    records = {tracker: statistics.median(measured.record_seconds) for tracker, measured in found.items()}
    pairs = zip(found["wandb"].step_seconds, found["none"].step_seconds, strict=True)
    by_round = [statistics.median(on) / statistics.median(off) for on, off in pairs]
    about = f"{date.today().isoformat()}, {benchmark.processor()}, {versions}, Python {platform.python_version()}"
    heads = ("tracker", "step, median (and quartiles), ms", "`record` of a train line, median, ms", "share of a step", "CPU time, s")
    lines = [
        "# What Weights & Biases costs a training step",
        "",
        f"`python {shlex.join(sys.argv)}`",
        "",
        f"{about}. Rounds: {len(by_round)}, of {len(steps['none']) // len(by_round)} steps with each, every step logged. Settings:",
        "",
        f"`{shlex.join([*SETTINGS, *settings])}`",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for tracker, measured in found.items():
        low, _, high = (1e3 * quartile for quartile in statistics.quantiles(steps[tracker], n=4))
        lines.append(
            f"| {tracker} | {1e3 * medians[tracker]:.1f} ({low:.1f} to {high:.1f}) | {1e3 * records[tracker]:.3f} "
            f"| {records[tracker] / medians[tracker]:.3%} | {statistics.median(measured.cpu_seconds):.1f} |"
        )
    lines += [
        "",
        f"A step with wandb takes **{medians['wandb'] / medians['none']:.4f}** times one without (ratio of the medians); "
        f"round by round {', '.join(f'{ratio:.4f}' for ratio in by_round)}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = benchmark.parser(__doc__)
    parser.add_argument("settings", nargs="*", metavar="key=value", help="as of python -m pretrain; they override those of the benchmark")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="that are counted, of each run")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)  # how the benchmark calls itself for one run
    arguments = parser.parse_intermixed_args()
    if arguments.train is not None:
        return train(arguments.train, arguments.settings)
    text = report(measure(arguments.settings, arguments.rounds, arguments.steps), arguments.settings)
    benchmark.publish(text, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
