"""One optimizer step on a CPU: the five of `came` beside torch's, on BERT-base's parameters, interleaved.

    python scripts/bench_optimizer_cpu.py [--repeats 7] [--threads 1] [--output scripts/bench_results/DATE_cpu_optimizer_step.md]

Prints Markdown: medians, ratios to `torch.optim.AdamW(fused=True)`, and every repeat. Needs the test dependencies.
"""

import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import benchmark
import torch
from torch import nn

import came

MEASURE = "torch AdamW, fused"
PUBLISHED = "came-pytorch CAME"


def bert_base_shapes() -> list[tuple[int, ...]]:
    """Parameters of BERT-base (Devlin et al., 2019) in the order of its modules: 109,482,240 values."""
    layer = [*[(768, 768), (768,)] * 4, (768,), (768,), (3072, 768), (3072,), (768, 3072), (768,), (768,), (768,)]
    return [(30522, 768), (512, 768), (2, 768), (768,), (768,), *layer * 12, (768, 768), (768,)]


def parameters(shapes: list[tuple[int, ...]]) -> list[nn.Parameter]:
    """Weights and gradients of a usual size, the same for every contender."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for shape in shapes:
        param = nn.Parameter(torch.randn(shape, generator=generator) * 0.02)
        param.grad = torch.randn(shape, generator=generator) * 1e-3
        made.append(param)
    return made


def contenders() -> dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]]:
    import came_pytorch

    decay = {"lr": 1e-5, "weight_decay": 0.01}
    return {
        MEASURE: lambda params: torch.optim.AdamW(params, fused=True, **decay),
        "torch AdamW, foreach": lambda params: torch.optim.AdamW(params, foreach=True, **decay),
        "torch Adafactor": lambda params: torch.optim.Adafactor(params, **decay),
        PUBLISHED: lambda params: came_pytorch.CAME(params, **decay),
        "came.CAME": lambda params: came.CAME(params, **decay),
        "came.AdamW": lambda params: came.AdamW(params, **decay),
        "came.LAMB": lambda params: came.LAMB(params, **decay),
        "came.Adafactor": lambda params: came.Adafactor(params, **decay),
        "came.SM3": lambda params: came.SM3(params, **decay),
    }


def measure(repeats: int) -> dict[str, list[float]]:
    """Seconds of every repeat of each contender's step, after one step that makes its state; one step of each in turn.

    The gradients, like the weights, are each contender's own: no step finds another's data in the cache.
    """
    steps = {name: make(parameters(bert_base_shapes())).step for name, make in contenders().items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def report(seconds: dict[str, list[float]]) -> str:
    medians = {name: statistics.median(repeats) for name, repeats in seconds.items()}
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "came-pytorch"))
    lines = [
        "# One optimizer step on a CPU, BERT-base's parameters",
        "",
        f"`python {shlex.join(sys.argv)}`",
        "",
        f"{benchmark.processor()}, {torch.get_num_threads()} thread(s), {versions}, Python {platform.python_version()}; fp32, medians of"
        f" {len(seconds[MEASURE])} interleaved repeats after one step of warm-up.",
        "",
        "| optimizer | median ms | x fused AdamW | every repeat, ms |",
        "|---|---|---|---|",
    ]
    for name, repeats in seconds.items():
        each = " ".join(f"{value * 1e3:.0f}" for value in repeats)
        lines.append(f"| {name} | {medians[name] * 1e3:.0f} | {medians[name] / medians[MEASURE]:.2f} | {each} |")
    faster = medians[PUBLISHED] / medians["came.CAME"]
    lines += ["", f"came.CAME is {faster:.2f} times as fast as {PUBLISHED}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = benchmark.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    text = report(measure(arguments.repeats))
    benchmark.publish(text, arguments.output)


if __name__ == "__main__":
    main()
