"""`python -m pretrain.checkpoint list|verify|show RUN`: which checkpoints there are, whether they are whole, and what one holds."""

import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.command import Parser, run_command
from pretrain.errors import UserError
from pretrain.user_path import user_path

if TYPE_CHECKING:
    from pretrain.checkpoint.manifest import Manifest

_DESCRIPTION = """\
Look at the checkpoints of a run.

  list     each checkpoint: step, steps skipped by then, size, when, and whether it stays
  verify   compare every file with its checksum; exit code 2 where one is damaged
  show     what one holds: how far the run was, what it was saved with, its configuration and its tensors
"""
_EXAMPLES = """\
examples:
  python -m pretrain.checkpoint list runs/bert_32k
  python -m pretrain.checkpoint verify runs/bert_32k --step 10000
  python -m pretrain.checkpoint show runs/bert_32k/checkpoints/step_00010000
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    return run_command(_run, arguments)


def _run(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    folder = user_path(options.run)
    if options.action == "list":
        if options.step is not None:
            raise UserError("--step is for verify and show; leave it out")
        _list(folder)
    elif options.action == "verify":
        _verify(folder, options.step)
    else:
        _show(folder, options.step)
    return 0


def _parser() -> Parser:
    parser = Parser("python -m pretrain.checkpoint", description=_DESCRIPTION, epilog=_EXAMPLES)
    parser.add_argument("action", choices=("list", "verify", "show"), help="what to do")
    parser.add_argument("run", metavar="RUN", help="a run's folder, or that of one of its checkpoints")
    parser.add_argument("--step", type=int, metavar="N", help="the checkpoint of this step (show: instead of the newest, verify: alone)")
    return parser


def _all(folder: Path, step: int | None) -> list[Path]:
    """What is asked about, oldest first: also what a run would not go on from."""
    from pretrain.checkpoint.folder import CheckpointFolder
    from pretrain.checkpoint.opening import is_checkpoint, named

    found = named(folder, step)
    return found if step is not None or is_checkpoint(folder) else CheckpointFolder(folder / "checkpoints").all()


# list -----------------------------------------------------------------------------------------------------------------------------


def _list(folder: Path) -> None:
    from pretrain.checkpoint import manifest
    from pretrain.checkpoint.folder import CheckpointFolder

    paths = _all(folder, None)
    checkpoints = CheckpointFolder(paths[0].parent)
    latest = checkpoints.latest()
    print(f"{'checkpoint':<20} {'step':>10} {'skipped':>8} {'size':>12}  {'when':<16}  notes")
    for path in paths:
        try:
            found = manifest.read(path)
        except manifest.Damaged as error:
            print(f"{path.name:<20} {'damaged: ' + error.problem}")
            continue
        progress, when = found["progress"], datetime.fromtimestamp((path / manifest.MANIFEST).stat().st_mtime)
        notes = ["latest"] if path == latest else []
        keep_every = found["config"]["checkpoint"]["keep_every"]
        if keep_every and progress["step"] % keep_every == 0:
            notes.append("kept for good")
        counts = f"{progress['step']:>10,} {progress['skipped_steps']:>8,} {_size(manifest.total_bytes(found)):>12}"
        print(f"{path.name:<20} {counts}  {when:%Y-%m-%d %H:%M}  {', '.join(notes)}".rstrip())
    for path in checkpoints.set_aside_ones():
        print(f"{path.name:<20} found damaged by the run and set aside; delete it when you like")


# verify ---------------------------------------------------------------------------------------------------------------------------


def _verify(folder: Path, step: int | None) -> None:
    from pretrain.checkpoint import manifest, restoring
    from pretrain.data.progress import Progress

    paths = _all(folder, step)
    damaged = []
    for path in paths:
        try:
            num_bytes = manifest.total_bytes(manifest.read(path))
            with Progress(f"checking {path.name}", num_bytes) as bar:
                restoring.check(path, on_file=bar.advance)
            print(f"{path.name}  whole, {_size(num_bytes)}", flush=True)
        except manifest.Damaged as error:
            damaged.append(path.name)
            print(f"{path.name}  damaged: {error.problem}", flush=True)
    if damaged:
        raise UserError(f"{len(damaged)} of {len(paths)} checkpoints in {paths[0].parent} are damaged ({', '.join(damaged)}); delete them")


# show -----------------------------------------------------------------------------------------------------------------------------


def _show(folder: Path, step: int | None) -> None:
    from came.safe_reading import UnsafeCheckpoint
    from pretrain.checkpoint import manifest
    from pretrain.checkpoint.opening import named

    path = named(folder, step)[0]
    found = manifest.read(path)
    try:
        rows = [("checkpoint", str(path)), *_facts(found), *_settings(path, found), *_tensors(path)]
    except UnsafeCheckpoint as error:
        raise manifest.Damaged(path, str(error)) from error
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:>{width}}  {text}" for name, text in rows))


def _facts(found: "Manifest") -> Iterator[tuple[str, str]]:
    from pretrain.checkpoint.manifest import progress_of, total_bytes

    progress, git = progress_of(found), found.get("git")
    samples = progress.position(found["config"]["train"]["global_batch_size"])
    yield "progress", f"step {progress.step:,}, {progress.skipped_steps:,} skipped, {samples:,} samples, loss scale {progress.loss_scale:g}"
    ranks = found["ranks"]
    yield "saved at", f"{ranks} {'rank' if ranks == 1 else 'ranks'}, ZeRO stage {found['config']['zero']['stage']}"
    yield "size", f"{_size(total_bytes(found))} in {len(found['files'])} files"
    yield "versions", ", ".join(f"{name} {version}" for name, version in found.get("versions", {}).items() if version)
    yield "git", f"{git['repository']} {git['commit']}{', with changes' if git['dirty'] else ''}" if git else "none"
    yield "wandb id", found.get("wandb_id") or "none"
    yield "data", f"fingerprint {found['data_fingerprint']}"
    yield "vocabulary", f"hash {found['vocabulary_hash']}"


def _settings(path: Path, found: "Manifest") -> Iterator[tuple[str, str]]:
    from pretrain.config.serialise import from_manifest
    from pretrain.plan.of_run import describe_data

    config = from_manifest(found["config"], path)
    train = config.train
    yield "model", f"{config.model.name}, {config.objective.kind}"
    yield (
        "training",
        f"{train.num_steps:,} steps of {train.global_batch_size:,} samples of {config.data.max_seq_length} tokens, {train.precision}",
    )
    yield "optimizer", f"{config.optimizer.name}, peak lr {config.optimizer.lr:g}, schedule {config.schedule.kind}"
    yield "corpus", describe_data(config)


def _tensors(path: Path) -> Iterator[tuple[str, str]]:
    from came.checkpoint import MASTER, kind_of, sizes

    by_kind: dict[str, list[tuple[int, int]]] = {}
    for key, (size, dtype) in sizes(path).items():
        by_kind.setdefault(kind_of(key), []).append((size.numel(), size.numel() * dtype.itemsize))
    for kind in sorted(by_kind, key=lambda kind: (kind != MASTER, kind)):
        numbers = by_kind[kind]
        elements, num_bytes = (sum(column) for column in zip(*numbers, strict=True))
        yield kind, f"{len(numbers):,} tensors, {elements:,} {'parameters' if kind == MASTER else 'values'}, {_size(num_bytes)}"


def _size(num_bytes: int) -> str:
    if num_bytes >= 2**30 / 10:
        return f"{num_bytes / 2**30:.2f} GiB"
    return f"{num_bytes / 2**20:.2f} MiB" if num_bytes >= 2**20 / 10 else f"{num_bytes / 2**10:.2f} KiB"


if __name__ == "__main__":
    sys.exit(main())
