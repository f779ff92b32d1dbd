"""A fine-tuning from beginning to end: the data, the model, one training for each seed, the results."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.config.schema.finetune import FinetuneConfig, FinetuningConfig
from pretrain.errors import UserError
from pretrain.exit_codes import DIVERGED, DONE
from pretrain.finetune import glue_data, model, squad_data, table
from pretrain.finetune.classification import Classification
from pretrain.finetune.problem import Problem
from pretrain.finetune.question_answering import QuestionAnswering, question_tokens
from pretrain.finetune.results import Results, made_from
from pretrain.finetune.tasks import GLUE_TASKS
from pretrain.finetune.training import num_updates, train
from pretrain.provenance import processor, provenance
from pretrain.user_path import user_path

_USUAL_LENGTH = {"squad": 384}
_LENGTH = 128


def finetune(given: str, config: FinetuningConfig) -> int:
    """Fine-tune the model that `given` names with every seed; the exit code. Raises UserError."""
    from pretrain.loading import device_of

    settings = config.finetune
    device = device_of(settings.device, "finetune.device=")
    data = squad_data.read(settings.data_dir) if config.task == "squad" else glue_data.read(GLUE_TASKS[config.task], settings.data_dir)
    start = model.find(given, num_labels(config.task), settings.dropout, settings.from_scratch)
    config = dataclasses.replace(config, finetune=with_lengths(config.task, settings, start))
    problem = build_problem(config, data, start)
    origin = made_from(
        config,
        weights=start.identity,
        architecture=_hash(start.described()),
        tokenizer=_hash(start.tokenization()),
        data=problem.fingerprint,
    )
    about = {"model": given, "settings": dataclasses.asdict(config), "counts": problem.counts}
    results = Results(output_folder(given, config), origin, about)
    _tell_plan(given, config, start, problem, device)
    for seed in settings.seeds:
        if results.has(seed, settings.save):
            print(f"seed {seed}  is done already")
        else:
            _run_seed(seed, config, start, problem, results, device)
    print("\n".join([f"\n{table.of_seeds(results.content)}\n", *table.remarks([results.content]), f"wrote {results.folder}"]))
    return DIVERGED if any("diverged" in results.content["seeds"][str(seed)] for seed in settings.seeds) else DONE


def num_labels(task: str) -> int | None:
    """Of the head: classes, 1 for a score, None for SQuAD."""
    return None if task == "squad" else len(GLUE_TASKS[task].labels) or 1


def with_lengths(task: str, settings: FinetuneConfig, start: model.Start) -> FinetuneConfig:
    """The settings with the lengths that they leave open. Raises UserError where the model or SQuAD's windows do not allow them."""
    length = settings.max_seq_length or min(_USUAL_LENGTH.get(task, _LENGTH), start.positions, start.trained_length or start.positions)
    if length > start.positions:
        raise UserError(
            f"finetune.max_seq_length={length} is more than the model's {start.positions} positions; give {start.positions} or less"
        )
    if task != "squad":
        return dataclasses.replace(settings, max_seq_length=length)
    stride = length // 3 if settings.doc_stride is None else settings.doc_stride
    room = length - question_tokens(length) - start.tokenizer.num_special_tokens_to_add(pair=True)
    if stride >= room:
        raise UserError(
            f"finetune.doc_stride={stride} leaves windows of finetune.max_seq_length={length} tokens nothing new beside the question; give "
            + (f"less than {room}" if room > 0 else "a greater finetune.max_seq_length")
        )
    return dataclasses.replace(settings, max_seq_length=length, doc_stride=stride)


def build_problem(config: FinetuningConfig, data: tuple[Any, Any], start: model.Start) -> Problem:
    """The task with its data, tokenized."""
    settings, (training, evaluated) = config.finetune, data
    length = settings.max_seq_length or 0
    if config.task == "squad":
        training = [training[place] for place in _chosen(len(training), settings.max_train_examples)]
        return QuestionAnswering(training, evaluated, start.tokenizer, length, settings.doc_stride or 0)
    places = _chosen(len(training.labels), settings.max_train_examples)
    training = glue_data.Examples([training.texts[place] for place in places], [training.labels[place] for place in places])
    return Classification(GLUE_TASKS[config.task], training, evaluated, start.tokenizer, length)


def _chosen(count: int, most: int | None) -> list[int]:
    """Of `count` examples at most so many, in their order, the same for every seed."""
    return sorted(np.random.default_rng(0).permutation(count)[:most].tolist())


def output_folder(given: str, config: FinetuningConfig) -> Path:
    """Where the results go: beside a run's other results; in finetune/ here for a model from elsewhere."""
    from pretrain.checkpoint.opening import is_checkpoint, is_run

    if config.finetune.output_dir is not None:
        return user_path(config.finetune.output_dir, "finetune.output_dir=")
    name = f"{config.task}{'-from_scratch' if config.finetune.from_scratch else ''}-{config.optimizer.name}-lr_{config.optimizer.lr:g}"
    folder = user_path(given)
    if not folder.is_dir():
        return Path("finetune") / given.replace("/", "--") / name
    for run in (folder, folder.resolve().parent):
        if is_run(run) and (run == folder or folder.name == "export"):
            return run / "finetune" / name
    if is_checkpoint(folder):
        return folder.resolve().parents[1] / "finetune" / f"{folder.resolve().name}-{name}"
    return Path("finetune") / folder.resolve().name / name


def _run_seed(seed: int, config: FinetuningConfig, start: model.Start, problem: Problem, results: Results, device: Any) -> None:
    built = start.build(seed).to(device)
    outcome = train(built, problem, config, seed, start.tokenizer.pad_token_id, lambda line: print(line, flush=True))
    record: dict[str, Any] = {"epochs": outcome.epochs, "train_seconds": round(outcome.train_seconds, 3)}
    record["made_with"] = {"device": _name_of(device), **provenance()}
    if outcome.diverged is not None:
        print(f"seed {seed}  ended: {outcome.diverged}; give a lower optimizer.lr", flush=True)
        results.add(seed, record | {"diverged": outcome.diverged}, None, "")
        return
    record |= {"scores": outcome.evaluation.scores, "rows_per_second": round(outcome.num_rows / max(outcome.train_seconds, 1e-9), 3)}
    if config.finetune.save:
        results.keep_model(seed, built, start.tokenizer)
    results.add(seed, record, outcome.evaluation.predictions, problem.predictions_suffix)


def _name_of(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def _tell_plan(given: str, config: FinetuningConfig, start: model.Start, problem: Problem, device: Any) -> None:
    settings, shapes = config.finetune, start.shapes()
    new = [name for name in shapes if name not in start.weights]
    size = f"{start.architecture}, {sum(map(np.prod, shapes.values())):,} parameters"
    print(f"{'model':>10}  {given}: {size}; " + ("random weights" if not start.weights else f"new weights: {', '.join(new) or 'none'}"))
    counts = ", ".join(f"{count:,} {name}" for name, count in problem.counts.items())
    print(f"{'data':>10}  {config.task}: {counts}; sequences of at most {settings.max_seq_length} tokens")
    if start.weights and start.trained_length and (settings.max_seq_length or 0) > start.trained_length:
        print(f"{'note':>10}  positions from {start.trained_length:,} on were not trained by the run")
    steps = num_updates(len(problem.rows), config)
    print(
        f"{'training':>10}  {steps:,} updates of {settings.batch_size} with {config.optimizer.name}, peak lr {config.optimizer.lr:g}, "
        f"{config.schedule.kind} schedule, warm-up {config.schedule.warmup_ratio:g}, on {device}",
        flush=True,
    )


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
