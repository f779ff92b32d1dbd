"""One optimizer step on a GPU or a CPU: the optimizers of `came` beside torch's and others', on a model's parameters.

    python scripts/bench_optimizer.py --model bert_large|gpt2_medium|gpt2_xl|bert_base [--device cuda|cpu] [--only NAME ...]
        [--rounds 3] [--repeats 10] [--threads 1] [--output scripts/bench_results/DATE_gpu_optimizer_bert_large.md]

Prints Markdown: milliseconds (median, smallest and largest), bytes per parameter that a copy would have moved in that time, state and peak
memory. The contenders take turns, round by round, each with its own state on the same weights and gradients. Needs the test dependencies.
"""

import gc
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from math import prod
from typing import Any

import benchmark
import torch
from torch import nn

import came

Shapes = list[tuple[int, ...]]
MEASURE = "torch AdamW, fused"
WARMUP_STEPS = 2
COPY_BYTES = {"cuda": 2**30, "cpu": 2**28}
MAX_NORM = 1.0


def bert_shapes(hidden: int, layers: int) -> Shapes:
    """Parameters of BERT (Devlin et al., 2019) in the order of its modules; base has 109,482,240 values, large 335,141,888."""
    wide = 4 * hidden
    layer = [*[(hidden, hidden), (hidden,)] * 4, *[(hidden,)] * 2, (wide, hidden), (wide,), (hidden, wide), *[(hidden,)] * 3]
    embeddings = [(30522, hidden), (512, hidden), (2, hidden), (hidden,), (hidden,)]
    return [*embeddings, *layer * layers, (hidden, hidden), (hidden,)]


def gpt2_shapes(hidden: int, layers: int) -> Shapes:
    """Parameters of GPT-2 (Radford et al., 2019), likewise: medium has 354,823,168 values, XL 1,557,611,200."""
    norm, wide = [(hidden,), (hidden,)], 4 * hidden
    attention = [(hidden, 3 * hidden), (3 * hidden,), (hidden, hidden), (hidden,)]
    layer = [*norm, *attention, *norm, (hidden, wide), (wide,), (wide, hidden), (hidden,)]
    return [(50257, hidden), (1024, hidden), *layer * layers, *norm]


MODELS: dict[str, Shapes] = {
    "bert_base": bert_shapes(768, 12),
    "bert_large": bert_shapes(1024, 24),
    "gpt2_medium": gpt2_shapes(1024, 24),
    "gpt2_xl": gpt2_shapes(1600, 48),
}


@dataclass(frozen=True)
class Contender:
    """An optimizer with what goes with its step."""

    name: str
    make: Callable[[Sequence[nn.Parameter]], Any]
    """What it returns has `step` and `state`."""
    dtype: torch.dtype = torch.float32
    """Of weights and gradients."""
    clip: bool = False
    """Whether `clip_grad_norm_` comes before the step."""
    gpu_only: bool = False
    streamed_bytes: float | None = None
    """What it moves for each parameter if every pass goes through memory, as far as that is known."""


DECAY = {"lr": 1e-5, "weight_decay": 0.01}


class Graphed:
    """CAME by its kernels, its step captured in a CUDA graph."""

    def __init__(self, params: Sequence[nn.Parameter]) -> None:
        made = came.CAME(params, implementation="triton", **DECAY)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            made.step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            made.step()
        self.state, self.step = made.state, graph.replay
        self._kept = made, graph


def contenders() -> list[Contender]:
    import came_pytorch

    decay = DECAY

    def fused(**options: Any) -> Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]:
        return lambda params: came.CAME(params, implementation="triton", **decay, **options)

    adamw = torch.optim.AdamW
    bf16 = torch.bfloat16
    return [
        Contender(MEASURE, lambda params: adamw(params, fused=True, **decay), streamed_bytes=28),
        Contender(f"{MEASURE}, after clip_grad_norm_", lambda params: adamw(params, fused=True, **decay), clip=True, streamed_bytes=40),
        Contender("torch AdamW, foreach", lambda params: adamw(params, foreach=True, **decay)),
        Contender("torch Adafactor", lambda params: torch.optim.Adafactor(params, **decay)),
        Contender("came-pytorch CAME", lambda params: came_pytorch.CAME(params, **decay)),
        Contender("came.CAME, eager", lambda params: came.CAME(params, implementation="eager", **decay)),
        Contender("came.CAME, kernels", fused(), gpu_only=True, streamed_bytes=32),
        Contender("came.CAME, kernels, CUDA graph", Graphed, gpu_only=True, streamed_bytes=32),
        Contender("came.CAME, kernels, max_grad_norm", fused(max_grad_norm=MAX_NORM), gpu_only=True, streamed_bytes=32),
        Contender("came.CAME, kernels, momentum bf16", fused(momentum_dtype="bfloat16"), gpu_only=True, streamed_bytes=26),
        Contender("came.CAME, kernels, momentum int8", fused(momentum_dtype="int8"), gpu_only=True, streamed_bytes=23),
        Contender("came.CAME, kernels, weights and gradients bf16", fused(), dtype=bf16, gpu_only=True, streamed_bytes=22),
        Contender("came.CAME, kernels, all bf16", fused(momentum_dtype="bfloat16"), dtype=bf16, gpu_only=True, streamed_bytes=16),
        Contender("came.AdamW", lambda params: came.AdamW(params, **decay)),
        Contender("came.LAMB", lambda params: came.LAMB(params, **decay)),
        Contender("came.Adafactor", lambda params: came.Adafactor(params, **decay)),
        Contender("came.SM3", lambda params: came.SM3(params, **decay)),
    ]


@dataclass
class Measured:
    """What was seen of a contender."""

    contender: Contender
    seconds: list[float] = field(default_factory=list)
    state_bytes: int = 0
    peak_bytes: int = 0
    """Allocated during the steps beyond weights and gradients; 0 on a CPU."""
    failure: str | None = None


class Bench:
    """Weights and gradients on a device, and its clock."""

    def __init__(self, shapes: Shapes, device: str) -> None:
        self.device = device
        generator = torch.Generator(device).manual_seed(0)
        self._weights = [torch.randn(shape, generator=generator, device=device) * 0.02 for shape in shapes]
        self._grads = [torch.randn(shape, generator=generator, device=device) * 1e-3 for shape in shapes]
        self.numel = sum(map(prod, shapes))

    def parameters(self, dtype: torch.dtype) -> list[nn.Parameter]:
        """The weights themselves where the dtype is theirs, with gradients."""
        params = [nn.Parameter(weights.to(dtype)) for weights in self._weights]
        for param, grad in zip(params, self._grads, strict=True):
            param.grad = grad.to(dtype)
        return params

    def seconds(self, function: Callable[[], Any]) -> float:
        """Of one call, on a GPU until it has done its work there."""
        if self.device == "cpu":
            start = time.perf_counter()
            function()
            return time.perf_counter() - start
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / 1e3

    def copy_bytes_per_second(self) -> float:
        """Bytes read and written by a second of copying."""
        source, target = (torch.zeros(COPY_BYTES[self.device] // 4, device=self.device) for _ in range(2))
        found = [self.seconds(lambda: target.copy_(source)) for _ in range(12)]
        return 2 * COPY_BYTES[self.device] / statistics.median(found[2:])

    def turn(self, measured: Measured, repeats: int) -> None:
        """One round of a contender, from the making of its state."""
        contender = measured.contender
        params = self.parameters(contender.dtype)
        before = torch.cuda.memory_allocated() if self.device == "cuda" else 0
        optimizer = contender.make(params)

        def step() -> None:
            if contender.clip:
                nn.utils.clip_grad_norm_(params, MAX_NORM)
            optimizer.step()

        try:
            for _ in range(WARMUP_STEPS):
                step()
            if self.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            measured.seconds += [self.seconds(step) for _ in range(repeats)]
        except (RuntimeError, ValueError) as error:
            measured.failure = str(error).splitlines()[0]
            return
        measured.state_bytes = state_bytes(optimizer)
        if self.device == "cuda":
            measured.peak_bytes = torch.cuda.max_memory_allocated() - before


def state_bytes(optimizer: Any) -> int:
    tensors = (value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def measure(bench: Bench, chosen: Sequence[Contender], rounds: int, repeats: int) -> list[Measured]:
    found = [Measured(contender) for contender in chosen]
    for _ in range(rounds):
        for measured in found:
            if measured.failure is None:
                bench.turn(measured, repeats)
            gc.collect()
    return found


def report(found: Sequence[Measured], bench: Bench, model: str, bytes_per_second: float) -> str:
    where = torch.cuda.get_device_name() if bench.device == "cuda" else f"{benchmark.processor()}, {torch.get_num_threads()} thread(s)"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "came-pytorch", *(["triton"] if bench.device == "cuda" else [])))
    measure = next((statistics.median(one.seconds) for one in found if one.contender.name == MEASURE and one.seconds), None)
    lines = [
        f"# One optimizer step, {model}'s {bench.numel:,} parameters",
        "",
        f"`python {shlex.join(sys.argv)}`",
        "",
        f"{where}; {versions}. A copy moves {bytes_per_second / 1e9:,.0f} GB/s, reads and writes together: the bytes per parameter are "
        "those of a copy that takes as long. Weights and gradients are in float32 where nothing else is said.",
        "",
        "| optimizer | median ms | smallest to largest | x fused AdamW | bytes per parameter | streamed | state MB | peak MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        name, streamed = one.contender.name, one.contender.streamed_bytes
        if not one.seconds:
            lines.append(f"| {name} | failed: {one.failure} | | | | | | |")
            continue
        median = statistics.median(one.seconds)
        cells = [
            f"{median * 1e3:.2f}",
            f"{min(one.seconds) * 1e3:.2f} to {max(one.seconds) * 1e3:.2f}",
            f"{median / measure:.2f}" if measure else "",
            f"{median * bytes_per_second / bench.numel:.1f}",
            "" if streamed is None else f"{streamed:g}",
            f"{one.state_bytes / 1e6:,.0f}",
            f"{one.peak_bytes / 1e6:,.0f}" if one.peak_bytes else "",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = benchmark.parser(__doc__)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contenders whose names begin so; all if left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=10, help="timed steps of a contender in a round")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    chosen = [contender for contender in contenders() if arguments.device == "cuda" or not contender.gpu_only]
    if arguments.only:
        chosen = [contender for contender in chosen if contender.name.startswith(tuple(arguments.only))]
    bench = Bench(MODELS[arguments.model], arguments.device)
    found = measure(bench, chosen, arguments.rounds, arguments.repeats)
    text = report(found, bench, arguments.model, bench.copy_bytes_per_second())
    benchmark.publish(text, arguments.output)


if __name__ == "__main__":
    main()
