"""Saving and loading BERT-base with CAME on a CPU: our checkpoints beside `torch.save` of the same state, and what a step pays.

    python scripts/bench_checkpoint.py [--repeats 5] [--folder /tmp] [--output scripts/bench_results/DATE_cpu_checkpoint.md]

One rank at ZeRO-1 in fp32. Both are written through to the disk (fsync); ours with SHA-256 sums, and verified when it is loaded. Prints
Markdown: medians and every repeat.
"""

import gc
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import benchmark
import torch

from came import checkpoint as came_checkpoint
from pretrain import distributed
from pretrain.batch_plan import BatchPlan
from pretrain.checkpoint import restoring
from pretrain.checkpoint.folder import CheckpointFolder
from pretrain.checkpoint.progress import Progress
from pretrain.checkpoint.saving import Saver
from pretrain.config.compose import compose
from pretrain.config.schema import CheckpointConfig
from pretrain.engine import Engine
from pretrain.model.build import Vocabulary, build_model
from pretrain.optim import build_optimizer

SETTINGS = (
    "+experiment=bert_32k model=bert_base objective=mlm zero=stage1 train.precision=fp32 train.global_batch_size=4 train.micro_batch_size=4"
).split()
LENGTH, PREDICTIONS = 128, 20


def make_engine() -> Engine:
    config = compose(SETTINGS)
    torch.manual_seed(0)
    model = build_model(config, Vocabulary(30522, pad_id=0))
    return Engine(model, build_optimizer(config.optimizer, model), config, BatchPlan(4, 4, 1))


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1000, 30000, (4, LENGTH), generator=generator)
    masked = (torch.arange(4)[:, None] * LENGTH + torch.arange(PREDICTIONS) * 5 + 1).flatten()
    return {
        "input_ids": tokens,
        "token_type_ids": torch.zeros_like(tokens),
        "masked_index": masked,
        "masked_labels": tokens.flatten()[masked],
    }


def step(engine: Engine) -> None:
    engine.accumulate([batch()])
    assert engine.step(1e-5).applied


def timed(action: Callable[[], Any]) -> float:
    gc.collect()
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def plain_state(engine: Engine) -> dict[str, torch.Tensor]:
    """The same tensors, as one would hand them to torch.save."""
    state = came_checkpoint.state_dict(engine.optimizer, engine.names)
    return {key: getattr(value, "local", value) for key, value in state.items()}


def torch_save(state: dict[str, torch.Tensor], path: Path) -> None:
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def measure(folder: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds of each repeat; one of each in turn. What has just been written is in the page cache when it is read."""
    engine, progress = make_engine(), Progress()
    store = CheckpointFolder(folder / "checkpoints")
    saver = Saver(store, CheckpointConfig(keep_last=1), {}, lambda: None)
    step(engine)
    found: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        found.setdefault(name, []).append(seconds)

    for repeat in range(repeats + 1):
        file = folder / "state.pt"
        plain = {
            "torch.save, fsync": timed(lambda: torch_save(plain_state(engine), file)),
            "torch.load (mmap off)": timed(lambda: torch.load(file, weights_only=True)),
        }
        without = timed(lambda: step(engine))
        progress.step += 1
        paid = timed(lambda: saver.save(engine, progress))
        during = []
        while not saver.finished():
            during.append(timed(lambda: step(engine)))
        saved = saver.wait()
        assert saved is not None and saved.error is None
        found["bytes"] = [saved.num_bytes]
        found["torch bytes"] = [file.stat().st_size]
        progress.step += 1
        alone = timed(lambda: (saver.save(engine, progress), saver.wait()))
        chosen = restoring.choose([store.of_step(progress.step)], fall_back=False)
        loaded = timed(lambda chosen=chosen: restoring.restore(engine, chosen))
        verified = timed(lambda: restoring.check(store.of_step(progress.step)))
        if repeat:
            for name, seconds in plain.items():
                note(name, seconds)
            note("ours: whole save, nothing beside it", alone)
            note("ours: what the step waits (the copy)", paid)
            note("ours: load into the engine", loaded)
            note("ours: checksums of all files", verified)
            note("a step without a save", without)
            note("a step while one is written", statistics.median(during) if during else float("nan"))
    return found


def report(found: dict[str, list[float]]) -> str:
    size, torch_size = found.pop("bytes")[0], found.pop("torch bytes")[0]
    medians = {name: statistics.median(repeats) for name, repeats in found.items()}
    lines = [
        "# A checkpoint of BERT-base with CAME on a CPU",
        "",
        f"`python {shlex.join(sys.argv)}`",
        "",
        f"{benchmark.processor()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, Python {platform.python_version()}; medians of"
        f" {len(next(iter(found.values())))} interleaved repeats after one of warm-up. {size:,} bytes, torch.save's file {torch_size:,}.",
        "",
        "| | median s | every repeat, s |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {medians[name]:.2f} | {' '.join(f'{value:.2f}' for value in repeats)} |" for name, repeats in found.items()]
    whole, plain = medians["ours: whole save, nothing beside it"], medians["torch.save, fsync"]
    paid = medians["ours: what the step waits (the copy)"]
    slower = medians["a step while one is written"] / medians["a step without a save"]
    lines += [
        "",
        f"A whole save takes {whole / plain:.2f} times torch.save; the step that begins it waits {paid / plain:.2f} of torch.save's time;"
        f" the steps beside it take {slower:.2f} times as long as others.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = benchmark.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder by default")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    distributed.init(1800)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        text = report(measure(Path(folder), arguments.repeats))
    distributed.shut_down()
    benchmark.publish(text, arguments.output)


if __name__ == "__main__":
    main()
