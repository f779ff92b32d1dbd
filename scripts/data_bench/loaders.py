"""Samples per second from one core: ours beside a `datasets.Dataset` of blocks, torch's DataLoader and transformers' collator."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from data_bench.plain import group_texts
from data_bench.preparation import tell

from pretrain.config.schema import ClmConfig, MlmConfig, MlmNspConfig, ObjectiveConfig
from pretrain.data.batches import make_batches
from pretrain.data.loader import windows
from pretrain.data.prepared import open_prepared

MICRO_BATCH_SIZE, MICRO_BATCHES_PER_WINDOW = 64, 64
_SECONDS, _REPEATS = 1.5, 5


@dataclass(frozen=True)
class Case:
    """An objective at a length, and what is asked of the loader: ten times what one H200 takes, in sequences per second."""

    objective: ObjectiveConfig
    length: int
    asked: float


BERT_CASES = (Case(MlmNspConfig(), 128, 20_000), Case(MlmConfig(), 128, 20_000), Case(MlmConfig(), 512, 5_000))
GPT2_CASES = (Case(ClmConfig(), 1024, 2_000_000 / 1024),)


@dataclass(frozen=True)
class Rates:
    """Sequences per second of every repeat."""

    case: Case
    ours: list[float]
    plain: list[float]


def measure(prepared: Path, blocks: Path, cases: Sequence[Case]) -> list[Rates]:
    """Both loaders in turn, several times each, for every case, on one core."""
    with _one_core():
        rates = []
        for case in cases:
            tell(f"loader: {case.objective.kind} at {case.length}")
            ours, plain = _ours(prepared, case), _plain(blocks, prepared / "tokenizer", case)
            pairs = [(_rate(ours), _rate(plain)) for _ in range(_REPEATS)]
            rates.append(Rates(case, *map(list, zip(*pairs))))
        return rates


def _ours(prepared: Path, case: Case) -> Callable[[], Iterator[int]]:
    """Starts windows of micro-batches; their numbers of sequences come out as they are made."""
    batches = make_batches(open_prepared(prepared), "train", case.objective, case.length, seed=0)

    def sizes() -> Iterator[int]:
        made = windows(batches, 0, MICRO_BATCH_SIZE * MICRO_BATCHES_PER_WINDOW, MICRO_BATCH_SIZE, rank=0, world_size=1)
        try:
            for window in made:
                yield MICRO_BATCH_SIZE * len(window)
        finally:
            made.close()

    return sizes


def _plain(blocks: Path, tokenizer_folder: Path, case: Case) -> Callable[[], Iterator[int]]:
    from datasets import disable_progress_bars, load_from_disk
    from torch.utils.data import DataLoader
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling

    disable_progress_bars()
    dataset: Any = load_from_disk(str(blocks))
    if len(dataset[0]["input_ids"]) != case.length:
        dataset = dataset.map(partial(group_texts, length=case.length), batched=True)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    is_masked = not isinstance(case.objective, ClmConfig)
    if not is_masked:
        tokenizer.pad_token = tokenizer.eos_token  # the collator asks for one, though all blocks are full
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=is_masked, mlm_probability=0.15 if is_masked else None)
    loader = DataLoader(dataset, MICRO_BATCH_SIZE, shuffle=True, collate_fn=collator, drop_last=True)

    def sizes() -> Iterator[int]:
        while True:
            for batch in loader:
                yield len(batch["input_ids"])

    return sizes


def _rate(start: Callable[[], Iterator[int]]) -> float:
    """Sequences per second of CPU time, of all threads of this process, after a first batch; the core is this process's alone or not."""
    sizes = start()
    list(islice(sizes, 1))
    begun, made = time.process_time(), 0
    while (seconds := time.process_time() - begun) < _SECONDS:
        made += next(sizes)
    sizes.close()
    return made / seconds


@contextmanager
def _one_core() -> Iterator[None]:
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {max(before)})
    torch.set_num_threads(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
        torch.set_num_threads(threads)
