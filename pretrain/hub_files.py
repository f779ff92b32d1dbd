"""Files of a model's repository on the Hugging Face hub: downloaded once, found without a network afterwards."""

import os.path
import re
from collections.abc import Sequence
from pathlib import Path

from pretrain.user_path import user_path

MODEL_FILES = ("config.json", "model*.safetensors", "model.safetensors.index.json")
"""What a model's weights are read from."""

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


class NotOnTheHub(Exception):
    """The files cannot be had; says why in one line."""


def names_the_hub(path: str) -> bool:
    """Whether `path` is nothing on this machine but could be a name on the hub."""
    return not os.path.exists(user_path(path)) and bool(_NAME.fullmatch(path)) and not path.endswith((".txt", ".json"))


def download(name: str, patterns: Sequence[str]) -> Path:
    """A folder, named by its commit, with the repository's files that match one of `patterns`. Raises NotOnTheHub."""
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # the library's errors have no common ancestor
        raise NotOnTheHub(str(error).strip().partition("\n")[0] or type(error).__name__) from error
