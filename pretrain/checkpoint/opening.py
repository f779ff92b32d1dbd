"""From what a user names, a run's folder or one checkpoint's, to the checkpoint that is meant, found whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.checkpoint import manifest
from pretrain.checkpoint.folder import CheckpointFolder, has_name, step_of
from pretrain.checkpoint.manifest import Damaged, Manifest
from pretrain.errors import UserError

if TYPE_CHECKING:
    from pretrain.config.schema import Config

_WANTED = "give a run's folder (runs/NAME), or that of one of its checkpoints"


@dataclass(frozen=True)
class Opened:
    """A checkpoint whose files match their checksums."""

    path: Path
    manifest: Manifest
    damaged: dict[Path, str]
    """What was wrong with those that came before it."""

    @property
    def step(self) -> int:
        return manifest.progress_of(self.manifest).step

    @property
    def config(self) -> "Config":
        """Of the run, when the checkpoint was saved."""
        from pretrain.config.serialise import from_manifest

        return from_manifest(self.manifest["config"], self.path)

    @property
    def tokenizer_dir(self) -> Path:
        """The tokenizer that the run keeps. Raises UserError where it is not there, or another one is."""
        from pretrain.data.tokenizer import load_tokenizer
        from pretrain.data.tokenizer_files import vocabulary_hash

        folder = self.path.resolve().parents[1] / "tokenizer"
        try:
            found = vocabulary_hash(load_tokenizer(folder))
        except Exception as error:  # the library raises plain Exception
            raise UserError(
                f"{folder}, the tokenizer of the run, cannot be read; copy it there from the run's prepared data, or leave the checkpoint "
                f"in its run's folder"
            ) from error
        if found != self.manifest["vocabulary_hash"]:
            raise UserError(f"{folder} is not the tokenizer that {self.path} was trained with; put that one there")
        return folder


def is_checkpoint(folder: Path) -> bool:
    """Whether `folder` is one checkpoint, whole or not."""
    return has_name(folder.resolve()) or (folder / ".metadata").exists()


def is_run(folder: Path) -> bool:
    """Whether `folder` is a run's, with checkpoints or without."""
    return (folder / "config.yaml").exists() or (folder / "checkpoints").is_dir()


def named(folder: Path, step: int | None = None) -> list[Path]:
    """The checkpoints that a run's folder (of `step`, or all that can be gone on from) or one checkpoint's stands for, best first."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; {_WANTED}")
    if is_checkpoint(folder):
        if step is not None:
            raise UserError(f"--step chooses among the checkpoints of a run, but {folder} is one checkpoint; leave it out")
        return [folder]
    if not is_run(folder):
        raise UserError(f"{folder} holds neither a run nor a checkpoint; {_WANTED}")
    checkpoints = CheckpointFolder(folder / "checkpoints")
    if not checkpoints.all():
        raise UserError(f"the run in {folder} has no checkpoint yet; wait for its first one (train.checkpoint_every_steps)")
    if step is None:
        return checkpoints.candidates()
    if checkpoints.of_step(step) not in checkpoints.all():
        there = ", ".join(str(step_of(path)) for path in checkpoints.all())
        raise UserError(f"the run in {folder} has no checkpoint of step {step}; give --step one of {there}")
    return [checkpoints.of_step(step)]


def open_whole(candidates: Sequence[Path]) -> Opened:
    """The first of `candidates` that is whole; a collective call, in which the ranks share the reading. Raises UserError if none is."""
    from pretrain.checkpoint import restoring

    opened, damaged = restoring.first_whole(candidates)
    if opened is None and len(damaged) == 1:
        raise Damaged(*damaged.popitem())
    if opened is None:
        raise UserError(f"no checkpoint in {candidates[0].parent} is whole ({restoring.told(damaged)}); give another run")
    return opened


def first_readable(candidates: Sequence[Path]) -> tuple[Path, Manifest]:
    """The first of `candidates` that is whole by its manifest and its files' sizes: no file is read. Raises UserError if none is."""
    problems = []
    for path in candidates:
        try:
            return path, manifest.read(path)
        except Damaged as error:
            problems.append(error)
    raise problems[0]
