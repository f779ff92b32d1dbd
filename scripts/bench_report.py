"""The page of many long runs: its size, the time to write it, and the time to its first drawing in a headless Chromium.

    python scripts/bench_report.py [--runs 50] [--points 20000] [--repeats 5] [--output FILE.md]

The runs are made up: every step logged with all of a real run's numbers and with noise, an evaluation every 200 steps.
"""

import json
import math
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import benchmark

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.browser import chromium  # noqa: E402

OPTIMIZERS = ("came", "adamw", "lamb", "adafactor", "sm3")
SAMPLES, TOKENS = 32768, 32768 * 128


def make_run(folder: Path, number: int, points: int) -> None:
    """Five optimizers, two seeds, rates a factor of two apart."""
    optimizer, seed, lr = OPTIMIZERS[number % 5], number // 5 % 2, 1e-4 * 2 ** (number // 10)
    place = folder / f"{optimizer}_lr{lr:.0e}_s{seed}"
    place.mkdir(parents=True)
    config = {"run": {"seed": seed}, "model": {"name": "bert_large"}, "objective": {"kind": "mlm_nsp"}, "zero": {"stage": 2}}
    config |= {"optimizer": {"name": optimizer, "lr": lr}, "train": {"num_steps": points}}
    (place / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    with (place / "metrics.jsonl").open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines(random.Random(number), number, lr, points))


def lines(noise: random.Random, number: int, lr: float, points: int) -> Iterator[dict]:
    yield {"kind": "start", "step": 0, "unigram_loss": 7.1, "data_fingerprint": "f" * 64, "plan": {"ranks": 8, "steps": points}}
    wall = 0.0
    for step in range(1, points + 1):
        seconds = 3.1 + 0.4 * noise.random()
        wall += seconds
        loss = 1.3 + 0.004 * number + 9 * math.exp(-step / (900 + 20 * number)) + 1.1 * math.exp(-step / 5000)
        at = {"step": step, "samples": SAMPLES * step, "tokens": TOKENS * step, "wall_seconds": wall, "skipped_steps": 0}
        memory = {"memory_params_bytes": 2e9, "memory_grads_bytes": 1e9, "memory_optimizer_bytes": 1e8 * (number % 5 + 1)}
        times = {"step_seconds": seconds, "data_seconds": 0.001 * noise.random(), "optimizer_seconds": 0.02 + 0.001 * noise.random()}
        rates = {"tokens_per_second": TOKENS / seconds, "mfu": 0.4 + 0.02 * noise.random(), "lr": lr * min(1.0, step / (0.2 * points))}
        norms = {"grad_norm": math.exp(noise.gauss(0, 0.3)), "update_rms": 1 + 0.1 * noise.gauss(0, 1), "memory_peak_bytes": 3e10}
        yield {"kind": "train", **at, "loss": loss + noise.gauss(0, 0.05), **rates, **times, **norms, **memory}
        if step % 200 == 0:
            scores = {"mlm_loss": loss - 0.1, "mlm_accuracy": 0.7 - 0.05 * loss + noise.gauss(0, 0.002), "mask_token_loss": loss + 0.2}
            yield {"kind": "eval", **at, "loss": loss + noise.gauss(0, 0.01), **scores, "nsp_accuracy": 0.95}
    yield {"kind": "end", "step": points, "samples": SAMPLES * points, "tokens": TOKENS * points, "wall_seconds": wall, "skipped_steps": 0}


def first_drawings(page: Path, repeats: int, height: int) -> list[tuple[float, float]]:
    """Wall seconds to the first drawing, by the page's own clock, and CPU seconds of its main thread."""
    found = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, chromium.Chromium(Path(profile)) as browser:
        browser.size(1280, height)
        for _ in range(repeats):
            browser.call("Performance.enable", timeDomain="threadTicks")
            browser.goto("about:blank")
            browser.goto(page.as_uri())
            metrics = {item["name"]: item["value"] for item in browser.call("Performance.getMetrics")["metrics"]}
            found.append((float(browser.run("document.documentElement.dataset.drawnAfter")) / 1000, metrics["TaskDuration"]))
            browser.call("Performance.disable")
    return found


def main() -> None:
    parser = benchmark.parser(__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--points", type=int, default=20000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        runs, page = Path(scratch, "runs"), Path(scratch, "report.html")
        for number in range(arguments.runs):
            print(f"making run {number + 1} of {arguments.runs}", file=sys.stderr, flush=True)
            make_run(runs, number, arguments.points)
        metrics_bytes = sum(path.stat().st_size for path in runs.rglob("metrics.jsonl"))
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "pretrain.report", runs, "-o", page], check=True, stdout=sys.stderr)
        seconds = time.perf_counter() - begun
        text = f"""# The page of {arguments.runs} runs with {arguments.points:,} points each

`python {shlex.join(sys.argv)}`

{date.today()}; {benchmark.processor()}.

| | |
|---|---|
| metrics.jsonl, all runs | {metrics_bytes / 1e6:,.0f} MB |
| the page | {page.stat().st_size:,} bytes |
| writing it | {seconds:.1f} s |
"""
        if chromium.find():
            for height, what in ((900, "1280 x 900, the charts in sight"), (2600, "1280 x 2600, four charts")):
                drawn = first_drawings(page, arguments.repeats, height)
                wall, cpu = (statistics.median(values) for values in zip(*drawn, strict=True))
                every = " ".join(f"{value:.2f}" for value, _ in drawn)
                text += f"| first drawing, {what} | {wall:.2f} s (every: {every}); {cpu:.2f} s of the main thread's CPU |\n"
        else:
            text += "| first drawing | no Chromium here |\n"
    benchmark.publish(text, arguments.output)


if __name__ == "__main__":
    main()
