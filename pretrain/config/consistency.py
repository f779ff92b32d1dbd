"""What must hold between two parts of a config, and what one config changes of another's mathematics."""

import dataclasses
from collections.abc import Iterator

from pretrain.config.registry import misnamed
from pretrain.config.schema import CameConfig, Config, HubDataConfig, MixtureDataConfig, PreparedDataConfig, TextDataConfig
from pretrain.config.zero_keys import check_extra
from pretrain.errors import UserError

_OBJECTIVES = {"bert": ("mlm", "mlm_nsp"), "gpt2": ("clm",)}
_TOKENIZERS = {"bert": "wordpiece", "gpt2": "bpe"}
_SPECIAL_TOKENS = {"mlm": 2, "mlm_nsp": 3}  # [CLS] text [SEP], [CLS] a [SEP] b [SEP]


def check_consistency(config: Config) -> None:
    """Raise a `UserError` for the first two settings that do not go together."""
    for key, value in misnamed(config):
        raise UserError(f"{key}={value} does not name what it belongs to; choose by the group instead: {key.partition('.')[0]}=...")
    _check_family(config)
    _check_lengths(config)
    _check_zero(config)


def check_runnable(config: Config, on_gpu: bool) -> None:
    """Raise a `UserError` for what only a real run needs, on the device at hand; a dry run does without."""
    check_sources(config)
    if config.run.init_from == "":
        raise UserError(
            "run.init_from is empty, but this run goes on from other weights; add run.init_from=runs/NAME (a run, one of its checkpoints, "
            "or a model in Hugging Face format), or run.init_from=null to begin with random ones"
        )
    if config.train.precision == "fp16" and not on_gpu:
        raise UserError("train.precision=fp16 needs a GPU; on a CPU give train.precision=bf16 or fp32")
    optimizer = config.optimizer
    if isinstance(optimizer, CameConfig) and optimizer.implementation == "triton" and (not on_gpu or config.zero.offload != "none"):
        raise UserError(
            "optimizer.implementation=triton needs the optimizer's state on a GPU; leave it at auto, which takes PyTorch without one"
        )
    if config.train.memory_snapshot_steps and not on_gpu:
        raise UserError(
            "train.memory_snapshot_steps needs a GPU, whose allocations PyTorch records; on a CPU leave it out (train.profile_steps works)"
        )


def check_sources(config: Config) -> None:
    """Raise a `UserError` where the data have no text to read."""
    data = config.data
    if isinstance(data, TextDataConfig) and not data.paths:
        raise UserError("data=text has no text to read; add data.paths=[FILE,FOLDER,...], or use data=stdlib")
    if isinstance(data, HubDataConfig) and not data.name:
        raise UserError("data=hub has no data set to read; add data.name=OWNER/NAME (a repository of parquet files), or use data=wikipedia")
    if isinstance(data, MixtureDataConfig) and not data.mixture:
        raise UserError(
            "data=mixture has no sources; add some, such as data.mixture.wiki.paths=[wiki/] data.mixture.wiki.weight=3"
            " data.mixture.books.paths=[books/]"
        )
    if isinstance(data, PreparedDataConfig) and not data.path:
        raise UserError("data=prepared has no folder; add data.path=FOLDER, one that python -m pretrain.prepare made")


def _check_family(config: Config) -> None:
    family, objective, tokenizer = config.model.family, config.objective.kind, config.tokenizer.kind
    if objective not in _OBJECTIVES[family]:
        fitting = " or ".join(f"objective={name}" for name in _OBJECTIVES[family])
        raise UserError(f"objective={objective} does not train model={config.model.name}; give {fitting}, or another model")
    if tokenizer not in ("auto", _TOKENIZERS[family]):
        raise UserError(f"tokenizer.kind={tokenizer} does not fit model={config.model.name}; give tokenizer.kind={_TOKENIZERS[family]}")


def _check_lengths(config: Config) -> None:
    length, positions = config.data.max_seq_length, config.model.max_positions
    if length > positions:
        raise UserError(f"data.max_seq_length={length} is more than model.max_positions={positions}; give {positions} or less")
    predictions = getattr(config.objective, "max_predictions", None)
    room = length - _SPECIAL_TOKENS.get(config.objective.kind, 0)
    if predictions is not None and predictions > room:
        raise UserError(
            f"objective.max_predictions={predictions} is more than the {room} tokens that data.max_seq_length={length} leaves"
            f" beside the special ones; give {room} or less"
        )


def _check_zero(config: Config) -> None:
    check_extra(config.zero.extra)
    if config.train.compile and config.zero.stage == 3:
        raise UserError("train.compile=true does not go with zero.stage=3, which swaps the weights under a compiled layer; leave it out")
    precision = config.train.precision
    if config.zero.offload != "none" and config.zero.stage == 0:
        raise UserError(f"zero.offload={config.zero.offload} needs zero.stage=1, 2 or 3; at stage 0 leave it out, or give zero=stage1")
    if precision == "fp16" and config.zero.stage == 0:
        # DeepSpeed 0.19 divides the gradient by a loss scale that it has not multiplied the loss by.
        raise UserError("train.precision=fp16 at zero.stage=0 has no working loss scale; give zero.stage=1, which also works on one rank")
    if precision != "fp32" and config.zero.stage == 0 and config.train.grad_accum_dtype == "fp32":
        raise UserError(
            f"train.precision={precision} at zero.stage=0 cannot accumulate gradients in fp32; give zero.stage=1, which also works on one rank"
        )


_NOT_MATHEMATICAL_PARTS = ("tracker", "launch", "zero", "checkpoint")
_NOT_MATHEMATICAL = {
    "run.name",
    "run.dir",
    "run.resume",
    "run.dry_run",
    "run.export",
    "train.micro_batch_size",
    "train.compile",
    "train.activation_checkpointing",
    "train.log_every_steps",
    "train.eval_every_steps",
    "train.eval_samples",
    "train.checkpoint_every_steps",
    "train.max_skipped_steps",
    "train.profile_steps",
    "train.memory_snapshot_steps",
    "train.device_peak_tflops",
    "optimizer.implementation",
    "tokenizer.path",
    "tokenizer.training_megabytes",
}
_ABOUT_THE_COMMAND = ("run.name", "run.dir", "run.resume", "run.dry_run")

_MATHEMATICAL_DATA = ("max_seq_length", "validation_fraction", "min_document_characters", "deduplicate")
"""The fingerprint of the prepared data stands for the text, wherever it lies."""


def mathematical_settings(config: Config) -> dict[str, object]:
    """The settings, flat, that the numbers of a run follow from: two runs that agree in all of them are the same run."""
    parts = dataclasses.asdict(config)
    return {key: value for key, value in _flat(parts) if key not in _NOT_MATHEMATICAL}


_TEXT = ("name", "subset", "split", "revision", "documents", "weight", "weights")
"""The settings of data.*, and of a source of a mixture, that say which text is read; the others say where it lies."""


def is_mathematical(key: str, config: Config) -> bool:
    """Whether a run's numbers follow from the setting `part.name`, or from what is chosen of the group `part`.

    Which text is read counts, where it lies does not: data=text and data=prepared say no more than that.
    """
    part, _, name = key.partition(".")
    if part in _NOT_MATHEMATICAL_PARTS:
        return False
    if not name:
        return part != "data" or not isinstance(config.data, TextDataConfig | PreparedDataConfig)
    if part == "data" and name not in _MATHEMATICAL_DATA:
        return name.startswith("weights.") or name.rpartition(".")[2] in _TEXT
    return key in mathematical_settings(config)


def _flat(parts: dict[str, dict]) -> Iterator[tuple[str, object]]:
    for part, values in parts.items():
        if part not in _NOT_MATHEMATICAL_PARTS:
            yield from ((f"{part}.{name}", value) for name, value in values.items() if part != "data" or name in _MATHEMATICAL_DATA)


def other_settings(config: Config) -> dict[str, object]:
    """The settings, flat, that change no number: a run may change them when it goes on."""
    parts = dataclasses.asdict(config)
    mathematical = mathematical_settings(config)
    flat = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
    return {key: value for key, value in flat.items() if key not in mathematical and key not in _ABOUT_THE_COMMAND}


def differences(old: dict[str, object], new: dict[str, object]) -> list[str]:
    """What differs between two runs' `mathematical_settings`, as `train.num_steps: 400 -> 50`."""
    keys = dict.fromkeys([*old, *new])
    return [f"{key}: {old.get(key, 'none')} -> {new.get(key, 'none')}" for key in keys if old.get(key) != new.get(key)]
