"""Models in Hugging Face format: a finished one written as `from_pretrained` reads it, and one from elsewhere read to begin with."""

import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from came.checkpoint import load_masters
from pretrain import durable
from pretrain.config.schema import Config
from pretrain.errors import UserError
from pretrain.model.build import Vocabulary, architecture_of, build_transformer, transformers_config, vocabulary_in

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

WRAPPER_PREFIX = "model."
"""In front of the model's own parameter names while it is trained: see `PretrainingModel`."""

# Out ------------------------------------------------------------------------------------------------------------------------------


def load_transformer(config: Config, vocabulary: Vocabulary, checkpoint: Path) -> "PreTrainedModel":
    """The plain transformers model with the fp32 master weights of a checkpoint, in this process alone."""
    masters = {name.removeprefix(WRAPPER_PREFIX): flat for name, flat in load_masters(checkpoint).items()}
    model = build_transformer(config, vocabulary)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    if shapes.keys() != masters.keys():
        raise RuntimeError(f"{checkpoint} does not hold this model: {sorted(shapes.keys() ^ masters.keys())[:3]} differ")
    model.load_state_dict({name: masters[name].view(shape) for name, shape in shapes.items()}, strict=False)
    model.tie_weights()
    return model


def export(config: Config, tokenizer_dir: Path, checkpoint: Path, folder: Path) -> None:
    """Write the model of a checkpoint to `folder`: weights in safetensors, configuration and tokenizer; replaces an earlier export.

    In this process alone. Raises OSError where it cannot be written.
    """
    from safetensors import SafetensorError

    model = load_transformer(config, vocabulary_in(tokenizer_dir), checkpoint)
    try:
        with durable.new_folder(folder) as new:
            with quiet():
                model.save_pretrained(new)
            for file in tokenizer_dir.iterdir():
                shutil.copy2(file, new)
    except (SafetensorError, OSError) as error:  # the former is safetensors' word for the latter
        raise OSError(str(error)) from error


# In -------------------------------------------------------------------------------------------------------------------------------

_HEADS = ("cls.", "bert.pooler.")
"""What belongs to an objective: a folder may lack it, and the run then draws its own."""

_DECIDES = {
    "bert": "model_type hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act max_position_embeddings "
    "type_vocab_size layer_norm_eps is_decoder add_cross_attention tie_word_embeddings",
    "gpt2": "model_type n_embd n_layer n_head n_positions n_inner activation_function layer_norm_epsilon scale_attn_weights "
    "scale_attn_by_inverse_layer_idx reorder_and_upcast_attn add_cross_attention tie_word_embeddings",
}
"""The keys of a config.json that, beside the weights, decide what the model computes."""


@dataclass(frozen=True)
class PretrainedWeights:
    """What a folder gives to a model of ours."""

    weights: "dict[str, Tensor]"
    """fp32, flat, by the transformers model's own names. Where the folder's vocabulary has fewer or more padded rows than ours, of
    the rows that both have."""
    lacking: tuple[str, ...]
    """Heads of ours that are not in it."""
    unused: tuple[str, ...]
    """What is in it and not in our model."""


def check_architecture(config: Config, folder: Path) -> None:
    """Raises UserError where the model in `folder` is not the configured one, by its config.json."""
    theirs = _config_in(folder).to_dict()
    ours = transformers_config(config.model, Vocabulary(1)).to_dict()
    for values in (theirs, ours):
        if "n_inner" in values:
            values["n_inner"] = values["n_inner"] or 4 * values.get("n_embd", 0)
    keys = _DECIDES[config.model.family].split()
    differing = [f"{key}: {theirs.get(key)} there, {ours[key]} here" for key in keys if theirs.get(key) != ours[key]]
    if differing:
        raise UserError(
            f"run.init_from: {folder} holds another model than model={config.model.name} ({'; '.join(differing)}); "
            f"give the model=... and model settings that it has, or other weights"
        )


def read_pretrained(config: Config, vocabulary: Vocabulary, folder: Path) -> PretrainedWeights:
    """The weights of the model in `folder`, from safetensors alone. Raises UserError where they are not those of the configured model."""
    check_architecture(config, folder)
    model, report = _from_pretrained(config, folder)
    theirs = {name: parameter.detach() for name, parameter in model.named_parameters()}
    shapes = parameter_shapes(config, vocabulary)
    lacking = lacking_heads(shapes, theirs.keys() - report["missing_keys"], folder)
    weights = {}
    for name in [name for name in shapes if name not in lacking]:
        ours, found = shapes[name], theirs[name]
        if found.shape != ours:
            of_vocabulary = found.shape[1:] == ours[1:] and ours[0] == vocabulary.padded_size
            if not of_vocabulary or found.shape[0] < vocabulary.size:
                raise UserError(
                    f"run.init_from: {name} is {tuple(found.shape)} in {folder} and {tuple(ours)} in this run, whose vocabulary has "
                    f"{vocabulary.size} entries; give the tokenizer.path that the weights were trained with, or other weights"
                )
            found = found[: ours[0]]
        weights[name] = found.reshape(-1)
    return PretrainedWeights(weights, tuple(lacking), tuple(sorted(report["unexpected_keys"])))


def parameter_shapes(config: Config, vocabulary: Vocabulary) -> "dict[str, torch.Size]":
    """Of the configured transformers model, by name; needs no memory."""
    import torch

    with torch.device("meta"):
        return {name: parameter.shape for name, parameter in build_transformer(config, vocabulary).named_parameters()}


def lacking_heads(wanted: Iterable[str], found: Collection[str], place: Path) -> list[str]:
    """Those of the `wanted` parameters that are not `found`; raises UserError where there is more than heads among them."""
    lacking = [name for name in wanted if name not in found]
    body = [name for name in lacking if not name.startswith(_HEADS)]
    if body:
        more = f" and {len(body) - 1} more" if len(body) > 1 else ""
        raise UserError(f"run.init_from: {place} lacks the weights of {body[0]}{more}; give a whole model")
    return lacking


def _from_pretrained(config: Config, folder: Path) -> tuple[Any, dict[str, Any]]:
    model_class = architecture_of(config.objective)
    told = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # the latter are then named, and refused here
    try:
        with quiet():
            model, report = model_class.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype="float32", **told)
    except Exception as error:  # the libraries' errors have no common ancestor
        raise _unreadable(folder, error) from error
    for name, found, wanted in sorted(report["mismatched_keys"]):
        raise _unreadable(folder, f"{name} is {tuple(found)}, by its config.json {tuple(wanted)}")
    return model, report


def _config_in(folder: Path) -> "PretrainedConfig":
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: Exception | str) -> UserError:
    reason = str(error).strip().partition("\n")[0]
    return UserError(
        f"run.init_from: {folder} holds no whole model in Hugging Face format with its weights in safetensors ({reason}); "
        f"give one as save_pretrained writes it"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own bars and reports, nor a word from DeepSpeed, which it looks for; what matters is said by the run."""
    import torch
    from transformers.utils import logging

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
