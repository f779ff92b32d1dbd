"""Every setting there is: typed, with its unit, its default and its check.

A default lives in this folder and nowhere else; the files under `configs/` state only what differs. Hydra composes the files into
`Config`, and `__post_init__` of each part checks its own values. What concerns two parts at once is in `consistency.py`.
"""

from dataclasses import dataclass, field

from omegaconf import MISSING

from pretrain.config.schema.compare import CompareConfig
from pretrain.config.schema.data import (
    DataConfig,
    DatasetConfig,
    FilesConfig,
    HubDataConfig,
    MixtureDataConfig,
    PreparedDataConfig,
    SourceConfig,
    StdlibDataConfig,
    TextDataConfig,
    TokenizerConfig,
)
from pretrain.config.schema.model import BertConfig, ClmConfig, Gpt2Config, MlmConfig, MlmNspConfig, ModelConfig, ObjectiveConfig
from pretrain.config.schema.optimizer import (
    AdafactorConfig,
    AdamWConfig,
    CameConfig,
    LambConfig,
    OptimizerConfig,
    ScheduleConfig,
    Sm3Config,
)
from pretrain.config.schema.run import (
    AUTO,
    CheckpointConfig,
    LaunchConfig,
    NoTrackerConfig,
    RunConfig,
    TrackerConfig,
    TrainConfig,
    WandbConfig,
    ZeroConfig,
)

__all__ = [
    "AUTO",
    "AdafactorConfig",
    "AdamWConfig",
    "BertConfig",
    "CameConfig",
    "CheckpointConfig",
    "ClmConfig",
    "CompareConfig",
    "Config",
    "DataConfig",
    "DatasetConfig",
    "FilesConfig",
    "Gpt2Config",
    "HubDataConfig",
    "LambConfig",
    "LaunchConfig",
    "MixtureDataConfig",
    "MlmConfig",
    "MlmNspConfig",
    "ModelConfig",
    "NoTrackerConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PreparedDataConfig",
    "RunConfig",
    "ScheduleConfig",
    "Sm3Config",
    "SourceConfig",
    "StdlibDataConfig",
    "TextDataConfig",
    "TokenizerConfig",
    "TrackerConfig",
    "TrainConfig",
    "WandbConfig",
    "ZeroConfig",
]


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
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)
