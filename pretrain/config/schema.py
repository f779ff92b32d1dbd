"""Every setting there is: typed, with its unit, its default and its check.

A default lives here and nowhere else; the files under `configs/` state only what differs. Hydra composes the files into
`Config`, and `__post_init__` of each part checks its own values. What concerns two parts at once is in `consistency.py`.
"""

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pretrain.errors import UserError

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def _require(condition: bool, key: str, value: object, wanted: str) -> None:
    if not condition:
        raise UserError(f"{key}={value} is not valid; give {wanted}")


def _require_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, key, value, "one of " + ", ".join(choices))


def _require_positive(prefix: str, owner: object, *names: str) -> None:
    for name in names:
        _require(0 < getattr(owner, name) < math.inf, f"{prefix}.{name}", getattr(owner, name), "a number above 0")


def _require_not_negative(prefix: str, owner: object, *names: str) -> None:
    for name in names:
        _require(0 <= getattr(owner, name) < math.inf, f"{prefix}.{name}", getattr(owner, name), "0 or more")


def _require_fraction(prefix: str, owner: object, *names: str) -> None:
    for name in names:
        _require(0 <= getattr(owner, name) < 1, f"{prefix}.{name}", getattr(owner, name), "a number in [0, 1)")


@dataclass
class RunConfig:
    """Where a run lives and how it begins."""

    name: str = MISSING
    """Folder of the run below `dir`."""
    dir: str = "runs"
    """Folder that holds the runs; relative to where the command is given."""
    seed: int = 0
    """Model initialisation, sample order, masks and dropout all follow from it."""
    resume: str = "auto"
    """auto: go on where the run folder stands, or begin; must: stop unless there is a checkpoint; never: stop if the folder holds a run."""
    dry_run: bool = False
    """Print the plan and exit; needs no data, network, GPU or weights."""
    export: bool = True
    """Write the finished model in Hugging Face format to `export/` in the run folder."""

    def __post_init__(self) -> None:
        _require(
            bool(self.name) and "/" not in self.name and self.name not in (".", ".."), "run.name", repr(self.name), "a plain folder name"
        )
        _require_choice("run.resume", self.resume, ("auto", "must", "never"))
        _require(0 <= self.seed < 2**63, "run.seed", self.seed, "an integer from 0 to 2^63 - 1")


@dataclass
class TrainConfig:
    """Batch, length, precision and rhythm of a run."""

    global_batch_size: int = MISSING
    """Samples per optimizer step over all ranks."""
    micro_batch_size: int = MISSING
    """Samples per forward/backward on one rank; the accumulation steps follow from it."""
    num_steps: int = MISSING
    """Optimizer updates of the whole run; a skipped step does not count."""
    precision: str = "fp32"
    """fp32, bf16, or fp16 (GPU only): dtype of weights and activations; master weights are fp32 always."""
    grad_accum_dtype: str = "fp32"
    """fp32, or `model` for the dtype of the weights (256 bf16 micro-steps then make the update some 36 % wrong)."""
    grad_clip: float = 0.0
    """Largest global gradient norm; 0 clips nothing."""
    log_every_steps: int = 10
    eval_every_steps: int = 1000
    """0 evaluates at the end only."""
    eval_samples: int = 2048
    """Validation samples per evaluation, at most as many as the split holds."""
    checkpoint_every_steps: int = 1000
    """0 saves at the end only."""
    max_skipped_steps: int = 10
    """Non-finite steps in a row after which the run stops (fp16's own loss-scale search does not count)."""
    profile_steps: list[int] = field(default_factory=list)
    """[first, last] step of which rank 0 writes a torch-profiler trace to `profile/` in the run folder; empty: none."""

    def __post_init__(self) -> None:
        _require_positive(
            "train", self, "global_batch_size", "micro_batch_size", "num_steps", "log_every_steps", "eval_samples", "max_skipped_steps"
        )
        _require_not_negative("train", self, "grad_clip", "eval_every_steps", "checkpoint_every_steps")
        _require_choice("train.precision", self.precision, ("fp32", "bf16", "fp16"))
        _require_choice("train.grad_accum_dtype", self.grad_accum_dtype, ("fp32", "model"))
        if self.profile_steps:
            window = len(self.profile_steps) == 2 and 1 <= self.profile_steps[0] <= self.profile_steps[1] <= self.num_steps
            wanted = f"the first and the last step, as in [10,13], within 1 to train.num_steps={self.num_steps}"
            _require(window, "train.profile_steps", str(self.profile_steps).replace(" ", ""), wanted)


@dataclass
class ModelConfig:
    """A transformer in the published proportions; `BertConfig` and `Gpt2Config` add what differs."""

    name: str = MISSING
    family: str = MISSING
    num_layers: int = MISSING
    hidden_size: int = MISSING
    num_heads: int = MISSING
    max_positions: int = MISSING
    """Rows of the position embedding: the longest sequence the model can ever see."""
    dropout: float = 0.1
    """Every dropout of the model at once: hidden, attention and embedding."""
    initializer_range: float = 0.02
    """Standard deviation of the initial weights; the published 0.02 suits widths from 768 on, much narrower models want more."""

    def __post_init__(self) -> None:
        _require_positive("model", self, "num_layers", "hidden_size", "num_heads", "max_positions", "initializer_range")
        _require_fraction("model", self, "dropout")
        _require(
            self.hidden_size % self.num_heads == 0, "model.hidden_size", self.hidden_size, f"a multiple of model.num_heads={self.num_heads}"
        )


@dataclass
class BertConfig(ModelConfig):
    """BERT (Devlin et al., 2019): 512 positions whatever the sequence length, so that a longer phase can follow."""

    family: str = "bert"
    max_positions: int = 512


@dataclass
class Gpt2Config(ModelConfig):
    """GPT-2 (Radford et al., 2019)."""

    family: str = "gpt2"
    max_positions: int = 1024


@dataclass
class DataConfig:
    """What is read and how it is cut."""

    kind: str = MISSING
    max_seq_length: int = 128
    """Tokens per sequence, special tokens included."""
    cache_dir: str = "~/.cache/pretrain"
    """Prepared token files, keyed by content and settings; shared by all runs."""
    validation_fraction: float = 0.02
    """Share of the documents, chosen by their hash, that is held out when no validation text is given."""
    min_document_characters: int = 1
    """Shorter documents are left out, and counted."""
    deduplicate: bool = False
    """Keep the first of documents whose text is the same, and count the others."""

    def __post_init__(self) -> None:
        _require(self.max_seq_length >= 8, "data.max_seq_length", self.max_seq_length, "8 or more")
        _require(0 < self.validation_fraction < 1, "data.validation_fraction", self.validation_fraction, "a number between 0 and 1")
        _require(self.min_document_characters >= 1, "data.min_document_characters", self.min_document_characters, "1 or more")


@dataclass
class StdlibDataConfig(DataConfig):
    """The embedded corpus: the English text that every Python carries."""

    kind: str = "stdlib"


@dataclass
class TextDataConfig(DataConfig):
    """The user's own files, mixed freely: plain text and .jsonl, also packed as .bz2, .gz, .xz or .zst, and .parquet."""

    kind: str = "text"
    paths: list[str] = field(default_factory=list)
    """Files, folders or glob patterns."""
    valid_paths: list[str] = field(default_factory=list)
    """Validation text; empty: cut from `paths` by document hash."""
    text_field: str = "text"
    """Where .jsonl and .parquet records hold their text."""


@dataclass
class HubDataConfig(DataConfig):
    """A data set of the Hugging Face hub, or a folder in a data set's layout, read by `datasets`."""

    kind: str = "hub"
    name: str = ""
    """As `datasets.load_dataset` takes it: wikimedia/wikipedia, or a folder."""
    subset: str | None = None
    """The data set's configuration, 20231101.en for example."""
    split: str = "train"
    valid_split: str | None = None
    """Validation text; none: cut from `split` by document hash."""
    revision: str | None = None
    """Branch, tag or commit; give a commit to hold on to exactly this text."""
    text_field: str = "text"
    streaming: bool = True
    """Read over the network as it comes; false: download the whole data set into the library's cache first."""


@dataclass
class SourceConfig:
    """One source of a mixture: files (`paths`) or a data set of the hub (`name`)."""

    weight: float = 1.0
    """Samples drawn from it, relative to the other sources' weights."""
    paths: list[str] = field(default_factory=list)
    valid_paths: list[str] = field(default_factory=list)
    name: str = ""
    subset: str | None = None
    split: str = "train"
    valid_split: str | None = None
    revision: str | None = None
    text_field: str = "text"
    streaming: bool = True


@dataclass
class MixtureDataConfig(DataConfig):
    """Several sources, drawn from by weight; which one a sample comes from follows from its position alone."""

    kind: str = "mixture"
    mixture: dict[str, Any] = field(default_factory=dict)
    """Name -> `SourceConfig`, for example data.mixture.books.paths=[books/] data.mixture.books.weight=1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mixture = {str(name): _source(str(name), values) for name, values in self.mixture.items()}


@dataclass
class PreparedDataConfig(DataConfig):
    """A folder that `python -m pretrain.prepare` made, wherever it lies now; the corpus is not needed, and `tokenizer` has no effect."""

    kind: str = "prepared"
    path: str = ""
    weights: dict[str, float] = field(default_factory=dict)
    """Weights of a mixture's sources, by name; empty: those it was prepared with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, weight in self.weights.items():
            _require(0 < weight < math.inf, f"data.weights.{name}", weight, "a number above 0")


def _source(name: str, values: Any) -> SourceConfig:
    key = f"data.mixture.{name}"
    _require(bool(_PLAIN_NAME.fullmatch(name)), "data.mixture", repr(name), "names of letters, digits, - and _")
    try:
        source = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SourceConfig), values))
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        known = ", ".join(part.name for part in fields(SourceConfig))
        raise UserError(f"{key}: {str(error).partition(chr(10))[0]}; its settings are {known}") from error
    _require_positive(key, source, "weight")
    if bool(source.paths) == bool(source.name):
        raise UserError(f"{key} must have either paths (files) or name (a data set of the hub); give {key}.paths=[...] or {key}.name=...")
    return source


@dataclass
class TokenizerConfig:
    """Text to ids: trained on the corpus, or read from the files given."""

    kind: str = "auto"
    """auto follows the model: wordpiece for BERT, bpe (byte-level) for GPT-2."""
    path: str | None = None
    """A tokenizer's folder in Hugging Face format or its name on the hub (bert-large-uncased, gpt2); vocab.txt (wordpiece); vocab.json with
    merges.txt beside it (bpe); none: train on the corpus."""
    vocab_size: int | None = None
    """Entries, special tokens included; none: the file's own, or when trained the published 30,522 and 50,257."""
    lowercase: bool | None = None
    """WordPiece only, as the uncased models; none: as the given tokenizer says, else true."""
    training_megabytes: int = 1000
    """Text that a tokenizer is trained on at most, taken from all over the corpus."""

    def __post_init__(self) -> None:
        _require_choice("tokenizer.kind", self.kind, ("auto", "wordpiece", "bpe"))
        _require(self.vocab_size is None or self.vocab_size > 0, "tokenizer.vocab_size", self.vocab_size, "a number above 0")
        _require_positive("tokenizer", self, "training_megabytes")


@dataclass
class ObjectiveConfig:
    """What the model is trained to predict."""

    kind: str = MISSING


@dataclass
class MlmConfig(ObjectiveConfig):
    """Masked language modelling on packed full sequences."""

    kind: str = "mlm"
    mask_probability: float = 0.15
    """Share of the tokens that is predicted: 80 % become [MASK], 10 % a random token, 10 % stay."""
    max_predictions: int | None = None
    """Predicted tokens per sequence at most; none: mask_probability of the sequence length, rounded up (20 at 128)."""

    def __post_init__(self) -> None:
        _require(0 < self.mask_probability < 1, "objective.mask_probability", self.mask_probability, "a number between 0 and 1")
        _require(
            self.max_predictions is None or self.max_predictions > 0, "objective.max_predictions", self.max_predictions, "a number above 0"
        )


@dataclass
class MlmNspConfig(MlmConfig):
    """Masked language modelling on sentence pairs, with next-sentence prediction."""

    kind: str = "mlm_nsp"
    short_sequence_probability: float = 0.1
    """Share of the pairs cut to a random shorter length, as in the published BERT data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_fraction("objective", self, "short_sequence_probability")


@dataclass
class ClmConfig(ObjectiveConfig):
    """Next-token prediction on packed blocks."""

    kind: str = "clm"


@dataclass
class OptimizerConfig:
    """Common to all optimizers; each has its own dataclass, so that only its own knobs exist."""

    name: str = MISSING
    lr: float = MISSING
    """Peak learning rate; the schedule scales it."""
    weight_decay: float = 0.01
    """Decoupled; not applied to biases and normalisation weights."""

    def __post_init__(self) -> None:
        _require_positive("optimizer", self, "lr")
        _require_not_negative("optimizer", self, "weight_decay")


@dataclass
class CameConfig(OptimizerConfig):
    """CAME (Luo et al., ACL 2023, Algorithm 2), with the paper's values."""

    name: str = "came"
    lr: float = 2e-4
    beta1: float = 0.9
    beta2: float = 0.999
    beta3: float = 0.9999
    eps1: float = 1e-30
    eps2: float = 1e-16
    clip_threshold: float = 1.0
    bias_correction: bool = False
    """Not the paper's: correct the averages for having begun at zero; the first steps are then 1.1 times lr instead of 11."""
    cautious: bool = False
    """Not the paper's: move only what moves against the gradient (Liang et al., 2024)."""
    trust_ratio: bool = False
    """Not the paper's: scale each matrix's update to the norm of its weights, as LAMB does."""
    legacy_1d: bool = False
    """Not the paper's: the authors' harness's fault on biases and normalisation weights, for reproducing its numbers only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_fraction("optimizer", self, "beta1", "beta2", "beta3")
        _require_positive("optimizer", self, "eps1", "eps2", "clip_threshold")


@dataclass
class AdamWConfig(OptimizerConfig):
    """AdamW (Loshchilov and Hutter, 2019)."""

    name: str = "adamw"
    lr: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_fraction("optimizer", self, "beta1", "beta2")
        _require_positive("optimizer", self, "eps")


@dataclass
class LambConfig(OptimizerConfig):
    """LAMB (You et al., ICLR 2020, Algorithm 2); biases and normalisation weights are left out of its layer-wise adaptation."""

    name: str = "lamb"
    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_fraction("optimizer", self, "beta1", "beta2")
        _require_positive("optimizer", self, "eps")


@dataclass
class AdafactorConfig(OptimizerConfig):
    """Adafactor (Shazeer and Stern, ICML 2018); the schedule gives the learning rate."""

    name: str = "adafactor"
    lr: float = 1e-2
    """Relative to each parameter's RMS while `scale_parameter` is on."""
    scale_parameter: bool = True
    beta1: float | None = None
    """Decay of the momentum; null for none, and no state for it."""
    beta2_decay: float = -0.8
    """beta2 of step t is 1 - t^beta2_decay."""
    eps1: float = 1e-30
    eps2: float = 1e-3
    clip_threshold: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_positive("optimizer", self, "eps1", "eps2", "clip_threshold")
        _require(-math.inf < self.beta2_decay <= 0, "optimizer.beta2_decay", self.beta2_decay, "0 or less")
        if self.beta1 is not None:
            _require_fraction("optimizer", self, "beta1")


@dataclass
class Sm3Config(OptimizerConfig):
    """SM3-II (Anil et al., NeurIPS 2019)."""

    name: str = "sm3"
    lr: float = 0.1
    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_fraction("optimizer", self, "momentum")


@dataclass
class ScheduleConfig:
    """Learning rate over the run: linear warm-up, then `kind`."""

    kind: str = MISSING
    """linear: to min_lr_ratio at the end; cosine: half a period to the same; constant."""
    warmup_ratio: float = 0.1
    """Share of the steps spent rising to the peak."""
    min_lr_ratio: float = 0.0
    """Where decay ends, as a share of the peak."""

    def __post_init__(self) -> None:
        _require_choice("schedule.kind", self.kind, ("linear", "cosine", "constant"))
        _require_fraction("schedule", self, "warmup_ratio", "min_lr_ratio")


@dataclass
class ZeroConfig:
    """DeepSpeed ZeRO (Rajbhandari et al., 2020)."""

    stage: int = MISSING
    """What is sharded: 0 nothing, 1 optimizer state, 2 gradients too, 3 weights too."""
    offload: str = "none"
    """none; cpu, at stages 1-3: fp32 masters and optimizer state live in the host's memory, and the update runs there."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further keys for DeepSpeed's `zero_optimization`, for example overlap_comm or reduce_bucket_size."""

    def __post_init__(self) -> None:
        _require(self.stage in (0, 1, 2, 3), "zero.stage", self.stage, "0, 1, 2 or 3")
        _require_choice("zero.offload", self.offload, ("none", "cpu"))


@dataclass
class TrackerConfig:
    """Where the curves go besides metrics.jsonl."""

    kind: str = MISSING


@dataclass
class WandbConfig(TrackerConfig):
    """Weights & Biases."""

    kind: str = "wandb"
    mode: str = "auto"
    """auto: online where an API key is found, else offline (files in the run folder, to be synced later)."""
    project: str = "pretrain"
    entity: str | None = None

    def __post_init__(self) -> None:
        _require_choice("tracker.mode", self.mode, ("auto", "online", "offline"))


@dataclass
class NoTrackerConfig(TrackerConfig):
    """metrics.jsonl alone."""

    kind: str = "none"


@dataclass
class LaunchConfig:
    """Processes of the run."""

    num_processes: int | None = None
    """One per GPU; none: as many as there are GPUs or, on a CPU, two where there are two cores."""
    timeout_seconds: int = 1800
    """How long a collective waits for the other ranks."""
    rendezvous_timeout_seconds: int = 300
    """How long the ranks wait for each other at the start."""

    def __post_init__(self) -> None:
        _require(self.num_processes is None or self.num_processes > 0, "launch.num_processes", self.num_processes, "a number above 0")
        _require_positive("launch", self, "timeout_seconds", "rendezvous_timeout_seconds")


@dataclass
class Config:
    """The whole configuration, as `python -m pretrain --cfg job` prints it."""

    run: RunConfig = MISSING
    train: TrainConfig = MISSING
    model: ModelConfig = MISSING
    data: DataConfig = MISSING
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    objective: ObjectiveConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    schedule: ScheduleConfig = MISSING
    zero: ZeroConfig = MISSING
    tracker: TrackerConfig = MISSING
    launch: LaunchConfig = field(default_factory=LaunchConfig)
