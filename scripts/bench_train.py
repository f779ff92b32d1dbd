"""Training speed beside a plain Hugging Face loop: the same model on the same samples, one after the other in one process.

    python scripts/bench_train.py --experiment bert_32k --micro-batch 64 --steps 20 [key=value ...] [--output FILE.md]

Further settings are those of `python -m pretrain`. Without a corpus in them (data=text data.paths=[...]), the text that Python carries is
used, with a vocabulary of the published size. The plain loop is what the Trainer does: transformers' model as it is (attention spelt out,
scores at every position, padded rows, batches that lie ready), torch's AdamW with clipping, bf16 by autocast where the run is bf16. Ours is
the run's own engine and data loader. A step here has few micro-steps; what a step of the experiment's global batch takes is reckoned from
the medians of one micro-step and of one optimizer step.
"""

import argparse
import gc
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import benchmark
import numpy as np
import torch
import transformers
from torch import Tensor

from pretrain import device_memory, distributed
from pretrain.batch_plan import BatchPlan
from pretrain.config.compose import compose
from pretrain.config.consistency import check_consistency
from pretrain.config.schema import AdamWConfig, Config, TextDataConfig
from pretrain.data.batches import Batches, make_batches
from pretrain.data.loader import windows
from pretrain.data.prepare import prepare
from pretrain.data.prepared import open_prepared
from pretrain.data.tokenizer_files import PUBLISHED_VOCAB_SIZE
from pretrain.engine import Engine
from pretrain.model.acceleration import accelerate, is_compiled
from pretrain.model.build import Vocabulary, build_model, build_transformer, vocabulary_of
from pretrain.model.flops import Work, flops, peak_flops_per_second, work_of
from pretrain.optim import build_optimizer

WARM_UP_STEPS = 2


@dataclass
class Measured:
    """One contender's seconds, step by step, and bytes."""

    micro_seconds: list[float] = field(default_factory=list)
    """Forward and backward of one micro-batch: a step's, shared out."""
    optimizer_seconds: list[float] = field(default_factory=list)
    data_seconds: list[float] = field(default_factory=list)
    """Waiting for a window of samples."""
    peak_bytes: int = 0
    micro_steps: int = 0
    work: Work = Work()
    """Of all these micro-steps."""
    shares: dict[str, float] = field(default_factory=dict)
    """Of the device's time, by kind of operation."""


class Bench:
    def __init__(self, config: Config, steps: int, accumulation: int) -> None:
        self.config, self.steps, self.accumulation = config, steps, accumulation
        self.device = distributed.device()
        prepared = open_prepared(prepare(config))
        self.vocabulary: Vocabulary = vocabulary_of(prepared)
        self.batches: Batches = make_batches(prepared, "train", config.objective, config.data.max_seq_length, config.run.seed)
        self.on_gpu = self.device.type == "cuda"

    def now(self) -> float:
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    # Ours ---------------------------------------------------------------------------------------------------------------------

    def ours(self, config: Config, found: Measured) -> None:
        """The run's own model, engine and loader."""
        torch.manual_seed(0)
        size = int(config.train.micro_batch_size)
        plan = BatchPlan(size * self.accumulation, size, 1)
        model = build_model(config, self.vocabulary)
        accelerate(model, config, self.on_gpu)
        engine = Engine(model, build_optimizer(config.optimizer, model), config, plan)
        stream = windows(self.batches, 0, plan.global_batch_size, size, 0, 1)

        def step(timed: bool) -> None:
            begun = self.now()
            window = next(stream)
            waited = self.now()
            engine.accumulate(window)
            passed = self.now()
            assert engine.step(config.optimizer.lr / 1000).applied
            if timed:
                self._note(found, waited - begun, passed - waited, self.now() - passed)
                found.work = sum(map(work_of, window), start=found.work)

        self._run(step, found)
        stream.close()
        engine.destroy()

    # The plain loop -----------------------------------------------------------------------------------------------------------

    def plain(self, config: Config, found: Measured) -> None:
        """transformers and torch alone."""
        torch.manual_seed(0)
        size = int(config.train.micro_batch_size)
        model = build_transformer(config, self.vocabulary).to(self.device).train()
        model.set_attn_implementation("eager")
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
        bf16 = torch.autocast(self.device.type, torch.bfloat16, enabled=config.train.precision == "bf16")
        ready = self._padded(size * self.accumulation * (self.steps + WARM_UP_STEPS + 1), size)

        def step(timed: bool) -> None:
            begun = self.now()
            for _ in range(self.accumulation):
                batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in next(ready).items()}
                with bf16:
                    loss = model(**batch).loss
                (loss / self.accumulation).backward()
            passed = self.now()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if timed:
                self._note(found, 0.0, passed - begun, self.now() - passed)

        self._run(step, found)

    def _padded(self, count: int, size: int) -> Iterator[dict[str, Tensor]]:
        """The same samples as rows with labels at every position, made beforehand."""
        batches = []
        for first in range(0, count, size):
            fields = {name: torch.from_numpy(values) for name, values in self.batches.batch(first + np.arange(size)).items()}
            if self.config.objective.kind == "clm":
                batch = {"input_ids": fields["input_ids"], "labels": fields["input_ids"]}  # the model shifts them itself
            else:
                labels = torch.full_like(fields["input_ids"], -100)
                rows, slots = (fields["masked_labels"] != -100).nonzero(as_tuple=True)
                labels[rows, fields["masked_positions"][rows, slots]] = fields["masked_labels"][rows, slots]
                kept = ("input_ids", "token_type_ids", "attention_mask", "next_sentence_label")
                batch = {name: fields[name] for name in kept if name in fields} | {"labels": labels}
            batches.append({name: tensor.pin_memory() if self.on_gpu else tensor for name, tensor in batch.items()})
        return iter(batches)

    # Both ---------------------------------------------------------------------------------------------------------------------

    def _run(self, step: Callable[[bool], None], found: Measured) -> None:
        for _ in range(WARM_UP_STEPS):
            step(False)
        for _ in range(self.steps):
            step(True)
        if not found.shares:
            found.shares = self._profile(lambda: step(False))

    def _note(self, found: Measured, data: float, passes: float, optimizer: float) -> None:
        found.data_seconds.append(data)
        found.micro_seconds.append(passes / self.accumulation)
        found.optimizer_seconds.append(optimizer)
        found.micro_steps += self.accumulation

    def _profile(self, step: Callable[[], None]) -> dict[str, float]:
        """Shares of one step's time on the device, by kind of operation."""
        activity = torch.profiler.ProfilerActivity
        with torch.profiler.profile(activities=[activity.CUDA, activity.CPU] if self.on_gpu else [activity.CPU]) as recorded:
            step()
        seconds: dict[str, float] = {}
        for event in recorded.key_averages():
            spent = event.self_device_time_total if self.on_gpu else event.self_cpu_time_total
            kind = next((kind for kind, parts in _KINDS.items() if any(part in event.key.lower() for part in parts)), "other")
            seconds[kind] = seconds.get(kind, 0.0) + spent
        total = sum(seconds.values())
        return {kind: value / total for kind, value in sorted(seconds.items(), key=lambda item: -item[1])}

    def product_flops_per_second(self) -> float:
        """What a large plain matrix product reaches here, in the run's precision: the best of several."""
        size = 8192 if self.on_gpu else 1024
        dtype = torch.bfloat16 if self.config.train.precision == "bf16" else torch.float32
        left, right = (torch.randn(size, size, device=self.device, dtype=dtype) for _ in range(2))
        seconds = []
        for _ in range(10):
            begun = self.now()
            left @ right
            seconds.append(self.now() - begun)
        return 2 * size**3 / min(seconds)


_KINDS = {
    "optimizer": ("optimizer", "foreach", "adam"),
    "attention": ("flash", "scaled_dot_product", "fmha"),
    "matrix products": ("mm", "gemm", "linear", "cutlass", "cublas", "nvjet"),
    "softmax and loss": ("softmax", "nll_loss", "cross_entropy"),
    "dropout": ("dropout", "bernoulli"),
    "normalisation": ("layer_norm", "layernorm"),
    "embedding and gather": ("embedding", "index", "gather", "scatter"),
    "copies": ("copy", "memcpy", "cat", "fill", "memset", "zero"),
    "fused by the compiler": ("triton",),
    "element by element": ("add", "mul", "sub", "div", "gelu", "tanh", "exp", "sum", "elementwise", "reduce", "pow", "sqrt", "norm"),
}


def main() -> None:
    parser = benchmark.parser(__doc__)
    parser.add_argument("--experiment", default="bert_32k")
    parser.add_argument("--micro-batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps that are timed, in each round")
    parser.add_argument("--accumulation", type=int, default=4, help="micro-steps of a timed step")
    parser.add_argument("--rounds", type=int, default=2, help="how often each contender has its turn")
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("settings", nargs="*", help="as of python -m pretrain")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    config = _config(arguments)
    distributed.init(1800)
    bench = Bench(config, arguments.steps, arguments.accumulation)
    contenders: dict[str, Callable[[Measured], None]] = {
        "plain Hugging Face loop, AdamW": lambda found: bench.plain(config, found),
        f"ours, {config.optimizer.name}": lambda found: bench.ours(config, found),
        "ours, adamw": lambda found: bench.ours(replace(config, optimizer=AdamWConfig()), found),
    }
    if is_compiled(config, bench.on_gpu):
        eager = replace(config, train=replace(config.train, compile=False))
        contenders[f"ours, {config.optimizer.name}, not compiled"] = lambda found: bench.ours(eager, found)
    measured = {name: Measured() for name in contenders}
    memory = device_memory.of(bench.device)
    for number in range(arguments.rounds):
        for name, contender in contenders.items():
            print(f"round {number + 1} of {arguments.rounds}: {name}", file=sys.stderr, flush=True)
            gc.collect()
            memory.begin()
            before = memory.peak_bytes()
            contender(measured[name])
            measured[name].peak_bytes = max(measured[name].peak_bytes, memory.peak_bytes() - (0 if bench.on_gpu else before))
    text = _report(bench, measured)
    distributed.shut_down()
    benchmark.publish(text, arguments.output)


def _config(arguments: argparse.Namespace) -> Config:
    settings = [f"+experiment={arguments.experiment}", f"train.micro_batch_size={arguments.micro_batch}", *arguments.settings]
    if not torch.cuda.is_available() and not any(setting.startswith("train.precision=") for setting in settings):
        settings.append("train.precision=fp32")
    config = compose(settings)
    if isinstance(config.data, TextDataConfig) and not config.data.paths:
        kind = "wordpiece" if config.model.family == "bert" else "bpe"
        config = compose([*settings, "data=stdlib", f"tokenizer.vocab_size={PUBLISHED_VOCAB_SIZE[kind]}"])
    check_consistency(config)
    return config


def _report(bench: Bench, measured: dict[str, Measured]) -> str:
    config, global_batch = bench.config, bench.config.train.global_batch_size
    size, length = int(config.train.micro_batch_size), config.data.max_seq_length
    real = next(found for found in measured.values() if found.work.tokens)
    share = real.work.tokens / (real.micro_steps * size * length)
    per_micro = flops(config, bench.vocabulary.padded_size, real.work) / real.micro_steps
    peak = peak_flops_per_second(torch.cuda.get_device_name()) if bench.on_gpu else None
    product = bench.product_flops_per_second()
    micro_steps = global_batch // size
    device = torch.cuda.get_device_name() if bench.on_gpu else f"{benchmark.processor()}, {torch.get_num_threads()} thread(s)"
    rows, slowest = [], None
    for name, found in measured.items():
        micro, optimizer = statistics.median(found.micro_seconds), statistics.median(found.optimizer_seconds)
        step = micro_steps * micro + optimizer
        slowest = slowest or step
        waiting = sum(found.data_seconds) / (sum(found.data_seconds) + bench.accumulation * sum(found.micro_seconds))
        columns = [
            name,
            f"{global_batch / step:,.1f}",
            f"{global_batch / step * length * share:,.0f}",
            f"{slowest / step:.2f}",
            f"{micro_steps * per_micro / step / peak:.1%}" if peak else "-",
            f"{micro_steps * per_micro / step / product:.1%}",
            f"{1e3 * micro:,.1f} ({_spread(found.micro_seconds)})",
            f"{1e3 * optimizer:,.1f} ({_spread(found.optimizer_seconds)})",
            f"{optimizer / step:.2%}",
            f"{waiting:.1%}",
            f"{found.peak_bytes / 1e9:.2f}",
        ]
        rows.append(columns)
    heads = (
        ["", "sequences/s", "tokens/s", "x plain", "MFU", "of a product's speed", "micro-step, ms", "optimizer, ms"],
        [f"optimizer's share of {global_batch:,}", "waiting for data", "peak memory, GB"],
    )
    shares = [[kind, *(f"{found.shares.get(kind, 0.0):.1%}" for found in measured.values())] for kind in [*_KINDS, "other"]]
    return f"""# Training {config.model.name} beside a plain Hugging Face loop

`python {shlex.join(sys.argv)}`

{time.strftime("%Y-%m-%d")}; {device}; torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}.
{config.objective.kind}, length {length}, vocabulary {bench.vocabulary.padded_size:,}, micro-batch {size}, {config.train.precision}, dropout
{config.model.dropout:g}, ZeRO stage {config.zero.stage}, torch.compile {"on" if is_compiled(config, bench.on_gpu) else "off"}; medians (and quartiles)
of {len(real.micro_seconds)} steps of {bench.accumulation} micro-steps.

{_table([*heads[0], *heads[1]], rows)}

sequences/s: of a whole step of {global_batch:,}, {micro_steps} micro-steps and one optimizer step. tokens/s: without padding, which is
{1 - share:.1%} of the rows. MFU: {per_micro / size / 1e9:,.2f} GFLOP per sequence, what the model has to do for its tokens and targets, whoever does
more, of the device's stated peak; a product's speed: a large plain matrix product reaches {product / 1e12:.3g} TFLOP/s in this run. Peak memory:
{"reserved on the device" if bench.on_gpu else "above what the process held before"}.

Shares of one step's time, by kind of operation:

{_table(["", *measured], shares)}
"""


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _spread(seconds: list[float]) -> str:
    if len(seconds) < 2:
        return "one"
    lower, _, upper = statistics.quantiles(seconds, n=4)
    return f"{1e3 * lower:,.1f}-{1e3 * upper:,.1f}"


if __name__ == "__main__":
    main()
