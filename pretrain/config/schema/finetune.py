"""How a pretrained model is fine-tuned on a task of GLUE or on SQuAD: `python -m pretrain.finetune`."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from pretrain.config.schema.checks import LARGEST, require, require_choice, require_fraction, require_not_negative, require_positive
from pretrain.config.schema.optimizer import OptimizerConfig, ScheduleConfig

TASK_NAMES = ("sst2", "mrpc", "rte", "cola", "stsb", "qnli", "mnli", "squad")


@dataclass
class FinetuneConfig:
    """What is read, how long it is trained, and where the results go."""

    data_dir: str | None = None
    """Folder of the task's files as they are usually downloaded (train.tsv, dev.tsv; train-v1.1.json, dev-v1.1.json), or the folder around
    it; none: the data set on the Hugging Face hub."""
    output_dir: str | None = None
    """Folder of the results; none: RUN/finetune/<task>[-from_scratch]-<optimizer>-lr_<lr>."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """One fine-tuning for each: the new weights, the order of the examples and dropout follow from it."""
    num_epochs: int = 3
    """Passes over the training examples."""
    max_steps: int | None = None
    """Updates at most; the schedule then ends there."""
    batch_size: int = 32
    """Examples (SQuAD: windows of a text) of an update."""
    eval_batch_size: int = 128
    """The same where nothing is trained: memory alone depends on it."""
    max_seq_length: int | None = None
    """Tokens of a sequence, what is longer is cut; none: 128, SQuAD 384, or what the model's run trained it with, or its positions, where
    those are fewer."""
    doc_stride: int | None = None
    """SQuAD: tokens that two windows of a long text have in common; none: a third of max_seq_length."""
    max_train_examples: int | None = None
    """Train on so many examples, drawn alike for every seed; none: on all."""
    dropout: float | None = None
    """Every dropout of the model at once; none: as it was pretrained."""
    grad_clip: float = 1.0
    """Largest global gradient norm; 0 clips nothing."""
    from_scratch: bool = False
    """The control: the same architecture and tokenizer with random weights."""
    save: bool = False
    """Keep each seed's model in the output folder, in Hugging Face format."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto: the GPU where there is one."""

    def __post_init__(self) -> None:
        require_positive("finetune", self, "num_epochs", "max_steps", "batch_size", "eval_batch_size", "max_train_examples")
        require(
            self.max_seq_length is None or 8 <= self.max_seq_length <= LARGEST, "finetune.max_seq_length", self.max_seq_length, "8 or more"
        )
        if self.doc_stride is not None:
            require_not_negative("finetune", self, "doc_stride")
        require_not_negative("finetune", self, "grad_clip")
        if self.dropout is not None:
            require_fraction("finetune", self, "dropout")
        fits = len(self.seeds) == len(set(self.seeds)) > 0 and all(0 <= seed < 2**63 for seed in self.seeds)
        require(fits, "finetune.seeds", str(self.seeds).replace(" ", ""), "different whole numbers from 0 on, as in [0,1,2]")


@dataclass
class FinetuningConfig:
    """The whole configuration of a fine-tuning."""

    task: str = MISSING
    finetune: FinetuneConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    schedule: ScheduleConfig = MISSING

    def __post_init__(self) -> None:
        require_choice("task", self.task, TASK_NAMES)
        require(
            self.task == "squad" or self.finetune.doc_stride is None, "finetune.doc_stride", self.finetune.doc_stride, "it with task=squad"
        )
