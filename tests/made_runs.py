"""Runs with checkpoints, made in a moment without training: a tiny model after a few updates with random gradients."""

import json
import pickle
import warnings
from dataclasses import asdict
from pathlib import Path

import torch

from came import checkpoint as came_checkpoint
from pretrain.checkpoint import manifest
from pretrain.checkpoint.progress import Progress
from pretrain.config.compose import compose
from pretrain.config.schema import Config
from pretrain.data.tokenizer import build_tokenizer, load_tokenizer, save_tokenizer
from pretrain.data.tokenizer_files import vocabulary_hash
from pretrain.model.build import build_model, vocabulary_in
from pretrain.optim import build_optimizer
from pretrain.run_folder import RunFolder

TEXT = ["the cat sees the moon and the moon sees the cat ", "a dog runs to the sea and the sea is blue "] * 5
TINY = ("model.num_layers=2", "model.hidden_size=32", "model.num_heads=2", "model.max_positions=32", "data.max_seq_length=16")
BERT = ("model=bert_tiny", "objective=mlm_nsp", "tokenizer.vocab_size=60", *TINY)
GPT2 = ("model=gpt2_tiny", "objective=clm", "tokenizer.vocab_size=290", *TINY)


def make_run(folder: Path, *settings: str, steps: tuple[int, ...] = (2, 4), texts: list[str] = TEXT) -> Path:
    """A run's folder with a tokenizer trained on `texts` and whole checkpoints of `steps`; the masters need all bits of fp32."""
    config = compose([*settings, f"run.dir={folder.parent}", f"run.name={folder.name}"])
    run = RunFolder(folder)
    run.claim(config)
    make_tokenizer(config, run.tokenizer, texts)
    torch.manual_seed(0)
    model = build_model(config, vocabulary_in(run.tokenizer))
    optimizer = build_optimizer(config.optimizer, model)
    names = {parameter: name for name, parameter in model.named_parameters()}
    about = {
        "config": asdict(config),
        "data_fingerprint": "0" * 64,
        "vocabulary_hash": hash_of(run.tokenizer),
        "ranks": 1,
        "wandb_id": "abc123",
        "versions": {"torch": torch.__version__, "wandb": None},
        "git": {"repository": "here", "commit": "f" * 40, "dirty": True},
    }
    for step in steps:
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        temporary = run.checkpoint_folder.begin(step)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)  # one process
            came_checkpoint.save(optimizer, names, temporary)
        files = manifest.described(temporary, sorted(path.name for path in temporary.iterdir()))
        manifest.write(temporary, asdict(Progress(step, skipped_steps=1)), files, about)
        run.checkpoint_folder.publish(step)
    return folder


def make_tokenizer(config: Config, folder: Path, texts: list[str] = TEXT) -> Path:
    kind = {"bert": "wordpiece", "gpt2": "bpe"}[config.model.family]
    save_tokenizer(build_tokenizer(config.tokenizer, kind, lambda: iter(texts)), folder)
    return folder


def hash_of(tokenizer_dir: Path) -> str:
    return vocabulary_hash(load_tokenizer(tokenizer_dir))


def checkpoint_of(run: Path, step: int = 4) -> Path:
    return RunFolder(run).checkpoint(step)


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def plant_a_pickle(checkpoint: Path, trace: Path) -> None:
    """Metadata that would make the file `trace` when they are unpickled, in a checkpoint whose checksums are all right."""
    (checkpoint / ".metadata").write_bytes(pickle.dumps(_Touch(trace)))
    found = json.loads((checkpoint / manifest.MANIFEST).read_text())
    about = {key: value for key, value in found.items() if key not in ("format_version", "progress", "files", "checksum")}
    manifest.write(checkpoint, found["progress"], manifest.described(checkpoint, found["files"]), about)
