"""Where a fine-tuning begins: a pretrained encoder under a new head, or the same with random weights."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain.errors import UserError
from pretrain.loading import find_model_or_download, refuse_without_positions
from pretrain.origin import trained_length

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_OF_THE_FILE = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")
"""What a configuration says of where it was read from."""


@dataclass(frozen=True)
class Start:
    """An encoder and its tokenizer, from which the models of all seeds are built."""

    config: Any
    """transformers' configuration of the model with its head."""
    tokenizer: Any
    weights: "dict[str, Tensor]"
    """By the names of the model with its head; what it lacks is drawn anew. Empty for random weights."""
    identity: str
    """Of what has been read: the same for the same weights. Hexadecimal SHA-256; `random` for random ones."""
    architecture: str
    """transformers' class of the model with its head."""
    trained_length: int | None = None
    """Tokens of the sequences that its run trained it with; None where it is not a run's."""

    @property
    def positions(self) -> int:
        """Tokens of the longest sequence that the model and its tokenizer take."""
        return min(self.config.max_position_embeddings, self.tokenizer.model_max_length)

    def build(self, seed: int) -> "PreTrainedModel":
        """The model in float32; what it draws follows from the seed."""
        import torch
        import transformers

        torch.manual_seed(seed)
        model = getattr(transformers, self.architecture)(self.config)
        model.load_state_dict(self.weights, strict=False)
        return model

    def shapes(self) -> dict[str, list[int]]:
        """Of the model's weights, by name; needs no memory."""
        import torch
        import transformers

        with torch.device("meta"):
            model = getattr(transformers, self.architecture)(self.config)
        return {name: list(parameter.shape) for name, parameter in model.named_parameters()}

    def described(self) -> dict[str, Any]:
        """What decides beside the weights what the model computes, what its dropout drops and what it draws; JSON values."""
        settings = {name: value for name, value in self.config.to_dict().items() if name not in _OF_THE_FILE}
        return {"class": self.architecture, "shapes": self.shapes(), "settings": settings}

    def tokenization(self) -> dict[str, Any]:
        """The whole tokenizer, but for the lengths it cuts and pads to; JSON values."""
        settings = json.loads(self.tokenizer.backend_tokenizer.to_str())
        return {name: value for name, value in settings.items() if name not in ("truncation", "padding")}


def find(given: str, num_labels: int | None, dropout: float | None, from_scratch: bool) -> Start:
    """The encoder that a user names: a run, a checkpoint, a folder in Hugging Face format, or a name on the hub.

    Args:
        num_labels: classes of the head, 1 for a score; None for the head that answers questions.
        dropout: every dropout of the model; None: as it was pretrained.
        from_scratch: leave the weights out.

    Raises UserError where it is no encoder, or not whole.
    """
    from pretrain.model.pretrained import quiet

    folder = find_model_or_download(given)
    with quiet():
        read = _of_folder if (folder / "config.json").exists() else _of_checkpoint
        config, tokenizer, weights, identity, architecture = read(folder, num_labels)
    if tokenizer.pad_token_id is None or not tokenizer.is_fast:
        raise UserError(f"the tokenizer of {given} cannot be used here (no padding, or no tokenizer.json); give another model")
    if dropout is not None:
        _set_dropout(config, dropout)
    if from_scratch:
        weights, identity = {}, "random"
    return Start(config, tokenizer, weights, identity, architecture, trained_length(folder))


_Read = tuple[Any, Any, "dict[str, Tensor]", str, str]


def _of_folder(folder: Path, num_labels: int | None) -> _Read:
    from transformers import AutoConfig, AutoModelForQuestionAnswering, AutoModelForSequenceClassification, AutoTokenizer

    loader: Any = AutoModelForQuestionAnswering if num_labels is None else AutoModelForSequenceClassification
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **local)
        _refuse_causal(any(name.endswith(("LMHeadModel", "ForCausalLM")) for name in config.architectures or ()), folder)
        refuse_without_positions(config, folder)
        config.num_labels = num_labels or 2
        told = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, report = loader.from_pretrained(folder, config=config, use_safetensors=True, dtype="float32", **local, **told)
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    except UserError:
        raise
    except Exception as error:  # the libraries' errors have no common ancestor
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{folder} holds no whole encoder in Hugging Face format with its weights in safetensors ({reason}); give another model"
        ) from error
    new = set(report["missing_keys"]) | {name for name, *_ in report["mismatched_keys"]}
    of_encoder = sorted(name for name in new if name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in name)
    if of_encoder:
        raise UserError(f"{folder} lacks the weights of {of_encoder[0]}; give a whole model")
    weights = {name: tensor for name, tensor in model.state_dict().items() if name not in new}
    return config, tokenizer, weights, _hash_of(sorted(folder.glob("model*.safetensors"))), type(model).__name__


def _of_checkpoint(folder: Path, num_labels: int | None) -> _Read:
    """The newest whole checkpoint of a run, or the one that is named."""
    from transformers import AutoTokenizer

    from pretrain.checkpoint.manifest import MANIFEST
    from pretrain.checkpoint.opening import named, open_whole
    from pretrain.model.build import vocabulary_in
    from pretrain.model.pretrained import load_transformer

    opened = open_whole(named(folder))
    for path, problem in opened.damaged.items():
        print(f"warning: {path} is damaged ({problem}); {opened.path.name} is used instead", file=sys.stderr)
    _refuse_causal(opened.config.model.family == "gpt2", folder)
    model = load_transformer(opened.config, vocabulary_in(opened.tokenizer_dir), opened.path)
    tokenizer = AutoTokenizer.from_pretrained(opened.tokenizer_dir, local_files_only=True)
    config = model.config
    config.num_labels = num_labels or 2
    weights = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("bert.")}
    architecture = "BertForQuestionAnswering" if num_labels is None else "BertForSequenceClassification"
    if num_labels is None:
        weights = {name: tensor for name, tensor in weights.items() if ".pooler." not in name}  # it answers without
    return config, tokenizer, weights, _hash_of([opened.path / MANIFEST]), architecture


def _set_dropout(config: Any, rate: float) -> None:
    """Whatever transformers' encoders call theirs; a rate that is not given follows another one."""
    for name, value in config.to_dict().items():
        if "dropout" in name and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(config, name, rate)


def _refuse_causal(is_causal: bool, folder: Path) -> None:
    if is_causal:
        raise UserError(f"{folder} holds a model that continues text, such as GPT-2; fine-tuning takes an encoder: give a BERT")


def _hash_of(files: list[Path]) -> str:
    import hashlib

    from pretrain.data.file_hashes import sha256_of

    return hashlib.sha256("".join(sha256_of(file) for file in files).encode()).hexdigest()
