"""What a fine-tuning leaves behind: `results.json` with its settings and the scores of each seed, and each seed's predictions.

A seed that is in it is not repeated; results that come from other settings, other weights or other data are not mixed with it.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pretrain import durable
from pretrain.config.consistency import differences
from pretrain.config.schema.finetune import FinetuningConfig
from pretrain.errors import UserError
from pretrain.plain_json import without_nan

NAME = "results.json"
_FORMAT_VERSION = 1
_LOCK_SECONDS = 60.0
"""Another command has the folder for as long as it takes to write a file."""
_FREE = {f"finetune.{name}" for name in ("data_dir", "output_dir", "seeds", "eval_batch_size", "save", "device")} | {
    "optimizer.implementation"
}
"""Settings that no score follows from; the data's own hash stands for their folder."""


def made_from(config: FinetuningConfig, **more: str) -> dict[str, Any]:
    """What the scores of a seed follow from, flat: settings, and hashes of what was read."""
    parts = dataclasses.asdict(config)
    task = parts.pop("task")
    flat = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
    return {"task": task} | {key: value for key, value in flat.items() if key not in _FREE} | more


class Results:
    """The results in a folder, to be added to. Raises UserError where it holds other ones.

    Args:
        origin: what they come from: see `made_from`.
        about: what is said of them besides, JSON values.
    """

    def __init__(self, folder: Path, origin: dict[str, Any], about: dict[str, Any]) -> None:
        self.folder = folder
        self.content: dict[str, Any] = {"format_version": _FORMAT_VERSION, "made_from": origin, **about, "seeds": {}}
        self._take_what_is_there()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder} cannot be written ({error.strerror}); give another finetune.output_dir") from error

    def has(self, seed: int, with_model: bool) -> bool:
        """Whether this seed is done (and its model is there, unless it diverged)."""
        record = self.content["seeds"].get(str(seed))
        return record is not None and (not with_model or "diverged" in record or self.model_folder(seed).is_dir())

    def model_folder(self, seed: int) -> Path:
        return self.folder / f"model_seed_{seed}"

    def keep_model(self, seed: int, model: Any, tokenizer: Any) -> None:
        """Write a seed's model in Hugging Face format; the folder has its name once it is whole."""
        from safetensors import SafetensorError

        from pretrain.model.pretrained import quiet

        try:
            with durable.new_folder(self.model_folder(seed)) as new, quiet():
                model.save_pretrained(new)
                tokenizer.save_pretrained(new)
        except (SafetensorError, OSError) as error:  # the former is safetensors' word for the latter
            raise self._cannot_be_written(error) from error

    def add(self, seed: int, record: dict[str, Any], predictions: str | None, suffix: str) -> None:
        """Write a seed's predictions, and then its record into `results.json`, in one instant, beside what another command that trains
        other seeds on another device has written there meanwhile."""
        try:
            with FileLock(self.folder / ".lock", timeout=_LOCK_SECONDS):
                self._take_what_is_there()
                seeds = self.content["seeds"] | {str(seed): record}
                self.content["seeds"] = dict(sorted(seeds.items(), key=lambda item: int(item[0])))
                if predictions is not None:
                    durable.write(self.folder / f"predictions_seed_{seed}{suffix}", predictions)
                temporary = self.folder / f"{NAME}.tmp"
                durable.write(temporary, json.dumps(without_nan(self.content), indent=1, allow_nan=False) + "\n")
                temporary.rename(self.folder / NAME)
        except Timeout as held:
            raise UserError(f"{self.folder} is held by another command; where there is none, delete {self.folder / '.lock'}") from held
        except OSError as error:
            raise self._cannot_be_written(error) from error

    def _take_what_is_there(self) -> None:
        if not (self.folder / NAME).exists():
            return
        found = read(self.folder / NAME)
        if changed := differences(found["made_from"], self.content["made_from"]):
            raise UserError(
                f"{self.folder} holds results that come from something else ({'; '.join(changed[:4])}); give another finetune.output_dir"
            )
        self.content["seeds"] |= found["seeds"]

    def _cannot_be_written(self, error: Exception) -> UserError:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        return UserError(f"{self.folder} cannot be written ({reason}); mend it and give the same command again")


def read(path: Path) -> dict[str, Any]:
    """The content of one `results.json`. Raises UserError where it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        whole = (
            content["format_version"] == _FORMAT_VERSION and isinstance(content["made_from"], dict) and isinstance(content["seeds"], dict)
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as results of a fine-tuning ({error}); move it away, or give another folder") from error
    if not whole:
        raise UserError(f"{path} is not of this version's format; move it away, or give another folder")
    return content
