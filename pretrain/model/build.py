"""transformers' BERT and GPT-2 from a configuration, with random weights; nothing is downloaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.config.schema import Config, ModelConfig, ObjectiveConfig

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from pretrain.data.prepared import Prepared
    from pretrain.model.objective import PretrainingModel

VOCABULARY_MULTIPLE = 64
"""Embedding rows are padded to a multiple of this, so that the largest matrix products have well-formed tiles."""


@dataclass(frozen=True)
class Vocabulary:
    """What a model needs to know of the tokenizer: entries and the ids of its special tokens."""

    size: int
    pad_id: int | None = None
    end_of_text_id: int | None = None

    @property
    def padded_size(self) -> int:
        """Rows of the embedding."""
        return -(-self.size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def vocabulary_of(prepared: "Prepared") -> Vocabulary:
    """The vocabulary of a prepared corpus."""
    return Vocabulary(prepared.vocab_size, prepared.special.pad, prepared.special.eot)


def vocabulary_in(tokenizer_dir: Path) -> Vocabulary:
    """The vocabulary of a saved tokenizer: the same as that of the corpus that was prepared with it."""
    from pretrain.data.tokenizer import load_tokenizer, special_tokens

    tokenizer = load_tokenizer(tokenizer_dir)
    special = special_tokens(tokenizer)
    return Vocabulary(tokenizer.get_vocab_size(), special.pad, special.eot)


def build_model(config: Config, vocabulary: Vocabulary) -> "PretrainingModel":
    """The model with its objective, on the default device and in the default dtype, drawn from torch's generator."""
    from pretrain.model.objective import CausalLanguageModelling, MaskedLanguageModelling

    model = build_transformer(config, vocabulary)
    return CausalLanguageModelling(model) if config.objective.kind == "clm" else MaskedLanguageModelling(model)


def build_transformer(config: Config, vocabulary: Vocabulary) -> "PreTrainedModel":
    """The plain transformers model, as it is exported."""
    return architecture_of(config.objective)(transformers_config(config.model, vocabulary))


def architecture_of(objective: ObjectiveConfig) -> "type[PreTrainedModel]":
    """transformers' class of model that is trained on `objective`."""
    from transformers import BertForMaskedLM, BertForPreTraining, GPT2LMHeadModel

    return {"clm": GPT2LMHeadModel, "mlm": BertForMaskedLM, "mlm_nsp": BertForPreTraining}[objective.kind]


def transformers_config(model: ModelConfig, vocabulary: Vocabulary) -> "PretrainedConfig":
    """transformers' configuration of a model with this vocabulary."""
    import transformers

    if model.family == "bert":
        return transformers.BertConfig(
            vocab_size=vocabulary.padded_size,
            hidden_size=model.hidden_size,
            num_hidden_layers=model.num_layers,
            num_attention_heads=model.num_heads,
            intermediate_size=4 * model.hidden_size,
            max_position_embeddings=model.max_positions,
            hidden_dropout_prob=model.dropout,
            attention_probs_dropout_prob=model.dropout,
            initializer_range=model.initializer_range,
            pad_token_id=vocabulary.pad_id,
            attn_implementation="sdpa",
        )
    return transformers.GPT2Config(
        vocab_size=vocabulary.padded_size,
        n_positions=model.max_positions,
        n_embd=model.hidden_size,
        n_layer=model.num_layers,
        n_head=model.num_heads,
        resid_pdrop=model.dropout,
        embd_pdrop=model.dropout,
        attn_pdrop=model.dropout,
        initializer_range=model.initializer_range,
        bos_token_id=vocabulary.end_of_text_id,
        eos_token_id=vocabulary.end_of_text_id,
        use_cache=False,
        attn_implementation="sdpa",
    )
