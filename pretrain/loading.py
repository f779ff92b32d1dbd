"""A language model that a user names, a run's, a checkpoint's or one in Hugging Face format, ready to be asked, with its tokenizer."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain.errors import UserError
from pretrain.user_path import user_path

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Loaded:
    """A model ready to be asked, with the tokenizer that it was trained with."""

    model: Any
    tokenizer: Any
    trained_length: int | None = None
    """Tokens of the sequences that its run trained it with; None where it is not a run's."""

    @property
    def kind(self) -> str:
        """`causal` or `masked`."""
        return "causal" if type(self.model).__name__.endswith(("LMHeadModel", "ForCausalLM")) else "masked"

    @property
    def positions(self) -> int:
        return self.model.config.max_position_embeddings

    @property
    def window(self) -> int:
        """Tokens that it sees at a time unless more are asked for: no positions that its run never trained."""
        return min(self.positions, self.trained_length or self.positions)

    def scores(self, found: Any) -> "Tensor":
        """Logits (batch, length, vocabulary), float32, of the tokenizer's entries alone."""
        logits = found["prediction_logits"] if "prediction_logits" in found else found["logits"]
        return logits[..., : len(self.tokenizer)].float()


def find_model(path: Path) -> Path:
    """The folder to load: a model in Hugging Face format, or a run that has none yet, or one checkpoint. Raises UserError for none."""
    from pretrain.checkpoint.opening import is_checkpoint, is_run

    if not path.is_dir():
        raise UserError(f"there is no folder {path}; give a run's folder (runs/NAME), or one with a model in Hugging Face format")
    for folder in (path, path / "export"):
        if (folder / "config.json").exists():
            return folder
    if not (is_run(path) or is_checkpoint(path)):
        raise UserError(f"{path} holds neither a run nor a model in Hugging Face format; give the folder of one, such as runs/NAME")
    return path


def find_model_or_download(given: str) -> Path:
    """The same for a folder or a model's name on the hub, which is downloaded. Raises UserError for neither."""
    from pretrain.data.tokenizer_files import FILES
    from pretrain.hub_files import MODEL_FILES, NotOnTheHub, download, names_the_hub

    if not names_the_hub(given):
        return find_model(user_path(given))
    try:
        return download(given, (*MODEL_FILES, *FILES))
    except NotOnTheHub as error:
        raise UserError(
            f"{given} is no folder here and cannot be had from the hub ({error}); give a run's folder (runs/NAME), or one with a model in "
            f"Hugging Face format"
        ) from error


def load_model(folder: Path, device_name: str) -> Loaded:
    """What `find_model` found, in float32, on `device_name` (cpu, cuda, cuda:1, ...; auto: the GPU where there is one), in evaluation mode.

    Raises UserError where it is no whole language model, or there is no such device.
    """
    from transformers.utils import logging

    from pretrain.model.pretrained import quiet
    from pretrain.origin import trained_length

    device = device_of(device_name)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with quiet():
        loaded = _load_exported(folder) if (folder / "config.json").exists() else _load_checkpoint(folder)
    loaded.model.to(device).eval()
    return replace(loaded, trained_length=trained_length(folder))


def device_of(name: str, option: str = "--device ") -> "torch.device":
    """Raises UserError, which calls the device by the option that names it, where it cannot be used here."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros((), device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"{option}{name} cannot be used here ({str(error).partition(chr(10))[0]}); give cpu or auto") from error


def refuse_without_positions(config: Any, folder: Path) -> None:
    """Raises UserError where transformers' configuration does not say how many positions the model has."""
    if getattr(config, "max_position_embeddings", None) is None:
        raise UserError(f"the model in {folder} states no max_position_embeddings in its config.json; give one that does, as BERT or GPT-2")


def _load_exported(folder: Path) -> Loaded:
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForPreTraining, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        refuse_without_positions(config, folder)
        causal = any(name.endswith(("LMHeadModel", "ForCausalLM")) for name in config.architectures or ())
        with_pairs = "BertForPreTraining" in (config.architectures or ())
        loader: Any = AutoModelForCausalLM if causal else AutoModelForPreTraining if with_pairs else AutoModelForMaskedLM
        model, report = loader.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype="float32"
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{folder} holds no whole model in Hugging Face format with its weights in safetensors ({reason}); give another folder"
        ) from error
    if report["missing_keys"]:
        missing = min(report["missing_keys"])
        raise UserError(f"the model in {folder} has no weights for {missing}; give one with its language-model head")
    return Loaded(model, tokenizer)


def _load_checkpoint(folder: Path) -> Loaded:
    """The newest whole checkpoint of a run, or the one that is named, with the tokenizer that the run keeps."""
    from transformers import AutoTokenizer

    from pretrain.checkpoint.opening import named, open_whole
    from pretrain.model.build import vocabulary_in
    from pretrain.model.pretrained import load_transformer

    opened = open_whole(named(folder))
    for path, problem in opened.damaged.items():
        print(f"warning: {path} is damaged ({problem}); {opened.path.name} is used instead", file=sys.stderr)
    model = load_transformer(opened.config, vocabulary_in(opened.tokenizer_dir), opened.path)
    return Loaded(model, AutoTokenizer.from_pretrained(opened.tokenizer_dir, local_files_only=True))
