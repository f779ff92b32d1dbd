"""What is trained: the model and its objective."""

from dataclasses import dataclass

from omegaconf import MISSING

from pretrain.config.schema.checks import require, require_fraction, require_positive


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
        require_positive("model", self, "num_layers", "hidden_size", "num_heads", "max_positions", "initializer_range")
        require_fraction("model", self, "dropout")
        require(
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
        require(0 < self.mask_probability < 1, "objective.mask_probability", self.mask_probability, "a number between 0 and 1")
        require_positive("objective", self, "max_predictions")


@dataclass
class MlmNspConfig(MlmConfig):
    """Masked language modelling on sentence pairs, with next-sentence prediction."""

    kind: str = "mlm_nsp"
    short_sequence_probability: float = 0.1
    """Share of the pairs cut to a random shorter length, as in the published BERT data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fraction("objective", self, "short_sequence_probability")


@dataclass
class ClmConfig(ObjectiveConfig):
    """Next-token prediction on packed blocks."""

    kind: str = "clm"
