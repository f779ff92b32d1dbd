"""A finished model in Hugging Face format: weights in safetensors, configuration and tokenizer, as `from_pretrained` reads them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from came.checkpoint import load_masters
from pretrain.config.schema import Config
from pretrain.data.prepared import Prepared
from pretrain.model.build import Vocabulary, build_transformer, vocabulary_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WRAPPER_PREFIX = "model."
"""In front of the model's own parameter names while it is trained: see `PretrainingModel`."""


def load_transformer(config: Config, vocabulary: Vocabulary, checkpoint: Path) -> "PreTrainedModel":
    """The plain transformers model with the fp32 master weights of a checkpoint, in this process alone."""
    masters = {name.removeprefix(_WRAPPER_PREFIX): flat for name, flat in load_masters(checkpoint).items()}
    model = build_transformer(config, vocabulary)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    if shapes.keys() != masters.keys():
        raise RuntimeError(f"{checkpoint} does not hold this model: {sorted(shapes.keys() ^ masters.keys())[:3]} differ")
    model.load_state_dict({name: masters[name].view(shape) for name, shape in shapes.items()}, strict=False)
    model.tie_weights()
    return model


def export(config: Config, prepared: Prepared, checkpoint: Path, folder: Path) -> Path:
    """Write the model of a checkpoint to `folder`, in this process alone; replaces an earlier export."""
    model = load_transformer(config, vocabulary_of(prepared), checkpoint)
    temporary = folder.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with _without_progress_bars():
        model.save_pretrained(temporary)
    for file in prepared.tokenizer_dir.iterdir():
        shutil.copy2(file, temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return folder


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Writing takes a moment; the run has its own bar."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    yield
    if enabled:
        logging.enable_progress_bar()
