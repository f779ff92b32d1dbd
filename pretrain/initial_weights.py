"""A run's first weights where they come from elsewhere (`run.init_from`): another run, a checkpoint, or a model in Hugging Face format.

Only the fp32 masters are set, to the bit, and the weights that follow from them; the optimizer and the schedule begin anew. Whatever
does not fit is a UserError, before anything is written to the run's folder.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pretrain.checkpoint import manifest, opening
from pretrain.config.consistency import differences
from pretrain.config.schema import Config, TokenizerConfig
from pretrain.config.serialise import from_manifest
from pretrain.data import tokenizer_files
from pretrain.errors import UserError
from pretrain.hub_files import MODEL_FILES, NotOnTheHub, download, names_the_hub
from pretrain.user_path import user_path

if TYPE_CHECKING:
    from pretrain.engine import Engine
    from pretrain.model.build import Vocabulary
    from pretrain.model.pretrained import PretrainedWeights

_WANTED = "give a run's folder (runs/NAME), that of one of its checkpoints, or a model in Hugging Face format"


class InitialWeights(Protocol):
    """Weights that were found to fit."""

    origin: dict[str, Any]
    """Where they come from, for the record: JSON values."""
    told: list[str]
    """The same for the user, in lines."""

    def load(self, engine: "Engine") -> None:
        """Make them the weights of a fresh engine; a collective call."""


def check(config: Config) -> None:
    """Raises UserError for what is wrong with `run.init_from` as far as one process sees it without the data; downloads what is on the hub."""
    given = user_path(config.run.init_from or "", "run.init_from=")
    if _is_ours(given):
        path, found = opening.first_readable(opening.named(given))
        _refuse_another_model(config, path, from_manifest(found["config"], path))
    else:
        from pretrain.model.pretrained import check_architecture

        check_architecture(config, _model_folder(config))


def find(config: Config, vocabulary: "Vocabulary", vocabulary_hash: str) -> InitialWeights | None:
    """The weights that `run.init_from` names, None where it names none; a collective call. Raises UserError, the same on all ranks.

    `vocabulary_hash` is that of the prepared data, as `tokenizer_files.vocabulary_hash` makes it.
    """
    if not config.run.init_from:
        return None
    if _is_ours(user_path(config.run.init_from, "run.init_from=")):
        return _OfCheckpoint(config, vocabulary, vocabulary_hash)
    return _OfHuggingFace(config, vocabulary, vocabulary_hash)


def _is_ours(folder: Path) -> bool:
    return folder.is_dir() and (opening.is_checkpoint(folder) or opening.is_run(folder))


_FREE = ("name", "dropout", "initializer_range")
"""Settings of a model that its weights do not depend on."""

# A run or a checkpoint ------------------------------------------------------------------------------------------------------------


class _OfCheckpoint:
    """Every rank reads its own intervals."""

    def __init__(self, config: Config, vocabulary: "Vocabulary", vocabulary_hash: str) -> None:
        from came.checkpoint import MASTER, sizes
        from pretrain import distributed
        from pretrain.model.pretrained import WRAPPER_PREFIX, lacking_heads, parameter_shapes

        given = user_path(config.run.init_from or "", "run.init_from=")
        opened = opening.open_whole(distributed.on_main(lambda: opening.named(given)))  # the other run may be going on
        _refuse_another_model(config, opened.path, opened.config)
        if opened.manifest["vocabulary_hash"] != vocabulary_hash:
            raise _another_vocabulary(opened.path)
        masters = [key.removesuffix(f"/{MASTER}") for key in sizes(opened.path) if key.endswith(f"/{MASTER}")]
        names = [name.removeprefix(WRAPPER_PREFIX) for name in masters]
        shapes = parameter_shapes(config, vocabulary)
        lacking, unused = lacking_heads(shapes, names, opened.path), sorted(set(names) - shapes.keys())
        self._path, self._left = opened.path, {f"{WRAPPER_PREFIX}{name}" for name in lacking}
        self.origin = {
            "path": config.run.init_from,
            "checkpoint": str(opened.path),
            "step": opened.step,
            "manifest_sha256": manifest.describe_file(opened.path / manifest.MANIFEST)["sha256"],
        }
        self.told = [
            f"warning: {path} is damaged ({problem}); {opened.path.name} is used instead" for path, problem in opened.damaged.items()
        ]
        self.told += [f"begins with the weights of step {opened.step} in {opened.path}{_besides(lacking, unused)}"]

    def load(self, engine: "Engine") -> None:
        from came.checkpoint import load_weights

        load_weights(engine.optimizer, engine.names, self._path, leave=self._left)
        engine.push_masters()


def _refuse_another_model(config: Config, checkpoint: Path, saved: Config) -> None:
    theirs, ours = (
        {f"model.{key}": value for key, value in dataclasses.asdict(whole.model).items() if key not in _FREE} for whole in (saved, config)
    )
    if changed := differences(theirs, ours):
        raise UserError(
            f"run.init_from: {checkpoint} holds another model than model={config.model.name} ({'; '.join(changed)}); "
            f"give the model=... and model settings that it has, or other weights"
        )


# Hugging Face format --------------------------------------------------------------------------------------------------------------


class _OfHuggingFace:
    """Rank 0 reads the whole model; the others, which need not see its folder, get one parameter after another."""

    def __init__(self, config: Config, vocabulary: "Vocabulary", vocabulary_hash: str) -> None:
        from pretrain import distributed

        self._config, self._vocabulary, self._vocabulary_hash = config, vocabulary, vocabulary_hash
        self._read: PretrainedWeights | None = None  # on rank 0
        self.origin, self.told = distributed.on_main(self._prepare)

    def _prepare(self) -> tuple[dict[str, Any], list[str]]:
        from pretrain.data.file_hashes import sha256_of
        from pretrain.model.pretrained import read_pretrained

        folder, given = _model_folder(self._config), self._config.run.init_from or ""
        self._read = read = read_pretrained(self._config, self._vocabulary, folder)
        tokenizer = _refuse_another_vocabulary(self._config, folder, self._vocabulary_hash)
        origin: dict[str, Any] = {
            "path": given,
            "sha256": {file.name: sha256_of(file) for file in sorted(folder.glob("model*.safetensors"))},
        }
        if names_the_hub(given):
            origin["revision"] = folder.name
        told = [] if tokenizer else [f"warning: {folder} holds no tokenizer; its vocabulary is taken to be that of the prepared data"]
        return origin, [*told, f"begins with the weights in {folder}{_besides(read.lacking, read.unused)}"]

    def load(self, engine: "Engine") -> None:
        import torch

        from pretrain import distributed
        from pretrain.model.pretrained import WRAPPER_PREFIX

        held: dict[str, list] = {}
        for place in engine.optimizer.places():
            for shard in place.shards:
                held.setdefault(engine.names[shard.param], []).append((shard.interval, shard.of(place.handed.detach())))
        weights = self._read.weights if self._read is not None else {}
        for name, numel in distributed.broadcast_object([(name, weight.numel()) for name, weight in weights.items()]):
            whole = weights[name].to(engine.device) if name in weights else torch.empty(numel, device=engine.device)
            distributed.broadcast(whole)
            for interval, master in held.get(f"{WRAPPER_PREFIX}{name}", []):
                part = whole[interval.start : interval.stop]  # shorter, or nothing, where only padded rows of the vocabulary are left
                master[: part.numel()].copy_(part)
        self._read = None
        engine.push_masters()


def _model_folder(config: Config) -> Path:
    """The folder in Hugging Face format that `run.init_from` names, here or on the hub."""
    given = config.run.init_from or ""
    folder = user_path(given, "run.init_from=")
    if names_the_hub(given):
        try:
            folder = download(given, (*MODEL_FILES, *tokenizer_files.FILES))
        except NotOnTheHub as error:
            raise UserError(f"run.init_from={given} is no folder here and cannot be had from the hub ({error}); {_WANTED}") from error
    if not folder.is_dir():
        raise UserError(f"run.init_from={given} is not a folder; {_WANTED}")
    if not (folder / "config.json").exists():
        raise UserError(f"run.init_from: {folder} holds neither a run, nor a checkpoint, nor a model with its config.json; {_WANTED}")
    return folder


def _refuse_another_vocabulary(config: Config, folder: Path, vocabulary_hash: str) -> bool:
    """Whether there is a tokenizer in `folder`; raises UserError where it has another vocabulary."""
    from pretrain.data.tokenizer import build_tokenizer, tokenizer_kind

    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        return False
    kind = tokenizer_kind(config.tokenizer, config.model.family)
    tokenizer = build_tokenizer(TokenizerConfig(path=str(folder)), kind, lambda: iter(()))
    if tokenizer_files.vocabulary_hash(tokenizer) != vocabulary_hash:
        raise _another_vocabulary(folder)
    return True


# What both say --------------------------------------------------------------------------------------------------------------------


def _another_vocabulary(place: Path) -> UserError:
    return UserError(
        f"run.init_from: the weights in {place} were trained with another vocabulary than that of the prepared data; give the tokenizer.path "
        f"that they were trained with (a run keeps it in its tokenizer/), or other weights"
    )


def _besides(lacking: Sequence[str], unused: Sequence[str]) -> str:
    said = f"; not in it, so drawn anew: {', '.join(lacking)}" if lacking else ""
    return said + (f"; in it, but not in this model: {', '.join(unused)}" if unused else "")
