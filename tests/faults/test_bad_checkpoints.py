"""A damaged checkpoint is named and the one before is used; a disk that fills or a folder that goes is said, and nothing good is lost."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch

from came.checkpoint import load_masters
from pretrain.checkpoint.restoring import check
from pretrain.metrics import read_metrics
from pretrain.run_folder import RunFolder
from tests.faults.fault_points import is_rank, on_call, wrap
from tests.forked_runs import SMALL, Ended, ForkedRuns

COMMAND = (*SMALL, "zero=stage2", "train.precision=bf16", "checkpoint.asynchronous=false")
"""Synchronous, so that it is known which save meets a fault."""
STEPS = [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.fixture(scope="module")
def finished(runs: ForkedRuns) -> Path:
    wandb_id = runs.folder / "runs" / "finished" / "wandb_id"
    wandb_id.parent.mkdir(parents=True)
    wandb_id.write_text("5f3a0c1e")
    ended = runs.run(*COMMAND, "run.name=finished", "checkpoint.keep_last=0")
    assert ended.codes == [0, 0], ended.said
    return runs.folder / "runs" / "finished"


def masters(folder: Path) -> dict[str, torch.Tensor]:
    return load_masters(RunFolder(folder).checkpoint(8))


def assert_same_end(folder: Path, finished: Path) -> None:
    found, wanted = masters(folder), masters(finished)
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    lines = read_metrics(RunFolder(folder).metrics)
    assert [line["step"] for line in lines if line["kind"] == "train"] == STEPS


def interrupted(finished: Path, name: str) -> RunFolder:
    """The run as it stood when the checkpoint of step 6 was the newest, under another name."""
    folder = RunFolder(shutil.copytree(finished, finished.with_name(name)))
    folder.config.write_text(folder.config.read_text().replace("name: finished", f"name: {name}"))
    shutil.rmtree(folder.checkpoint(8))
    (folder.checkpoints / "latest").write_text("step_00000006")
    kept = [text for text in folder.metrics.read_text().splitlines() if '"kind": "end"' not in text and '"step": 8' not in text]
    folder.metrics.write_text("\n".join(kept) + "\n")
    return folder


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": lambda checkpoint: flip(checkpoint / "__1_0.distcp"),
    "missing": lambda checkpoint: (checkpoint / "__0_0.distcp").unlink(),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_the_one_before_is_used(runs: ForkedRuns, finished: Path, how: str) -> None:
    folder = interrupted(finished, how)
    DAMAGES[how](folder.checkpoint(6))
    folder.wandb_id.unlink()
    ended = runs.run(*COMMAND, f"run.name={how}")
    assert ended.codes == [0, 0], ended.said
    named = {"flipped": "__1_0.distcp does not match its checksum", "missing": "__0_0.distcp is missing"}[how]
    assert named in ended.said and "it is now step_00000006.damaged, and step_00000004 is used instead" in ended.said
    assert "going on from step 4" in ended.said
    assert_same_end(folder.path, finished)
    assert folder.wandb_id.read_text() == "5f3a0c1e"


def test_must_goes_on_from_no_other(runs: ForkedRuns, finished: Path) -> None:
    folder = interrupted(finished, "must")
    flip(folder.checkpoint(6) / ".metadata")
    ended = runs.run(*COMMAND, "run.name=must", "run.resume=must")
    assert ended.codes == [2, 2]
    (error,) = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    assert ".metadata does not match its checksum" in error and "run.resume=auto takes the one before" in error
    assert "Traceback" not in ended.said
    assert folder.checkpoint(6).exists()


def test_without_a_whole_one_nothing_is_written_over(runs: ForkedRuns, finished: Path) -> None:
    folder = interrupted(finished, "none")
    for path in folder.checkpoint_folder.all():
        manifest = (path / "manifest.json").read_text()
        assert manifest.count('"ranks": 2') == 1
        (path / "manifest.json").write_text(manifest.replace('"ranks": 2', '"ranks": 3'))
    ended = runs.run(*COMMAND, "run.name=none")
    assert ended.codes == [2, 2]
    (error,) = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    assert "no checkpoint" in error and error.count("manifest.json does not match its checksum") == 3
    assert len(folder.checkpoint_folder.all()) == 3


# Disks that fill, folders that go -------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own; skips where it cannot be had."""
    folder.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def mount(*command: str) -> None:
    subprocess.run(command, check=True)


def lock(folder: Path) -> None:
    """Make a folder read-only, for root too."""
    mount("mount", "--bind", str(folder), str(folder))
    mount("mount", "-o", "remount,bind,ro", str(folder))


def fill(disk: Path) -> None:
    """To the last byte."""
    with (disk / "filler").open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 8, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass


def at_steps(*actions: tuple[int, Callable[[], object]]) -> Callable[[], None]:
    """On rank 0, before it makes these steps."""
    return partial(_install, actions)


def _install(actions: tuple[tuple[int, Callable[[], object]], ...]) -> None:
    from pretrain.engine import Engine

    if is_rank(0):
        for step, action in actions:
            wrap(Engine, "step", before=on_call(step, action))


def on_disk(runs: ForkedRuns, disk: Path, *settings: str, **more: object) -> Ended:
    return runs.run(*[text for text in COMMAND if text != "run.dir=runs"], f"run.dir={disk}", "run.name=it", *settings, **more)


def test_a_disk_that_is_full_for_a_while_costs_nothing(runs: ForkedRuns, finished: Path) -> None:
    """From step 3 to step 6: the save of step 4 fails, metrics wait in memory, the save of step 6 succeeds."""
    with small_disk(runs.folder / "while", 8) as disk:
        ended = on_disk(runs, disk, fault=at_steps((3, partial(fill, disk)), (6, (disk / "filler").unlink)))
        assert ended.codes == [0, 0], ended.said
        assert "warning: the checkpoint of step 4 could not be written (No space left on device); step 2 is the last good one" in ended.said
        assert "Traceback" not in ended.said and "Logging error" not in ended.said
        assert_same_end(disk / "it", finished)


def try_again_soon(actions: Callable[[], None]) -> None:
    from pretrain.checkpoint import keeper

    keeper._RETRY_SECONDS = 0.0
    actions()


def test_a_save_that_failed_is_tried_again_before_the_next_is_due(runs: ForkedRuns) -> None:
    """Due at steps 4 and 8; there is room again from step 6 on."""
    with small_disk(runs.folder / "again", 8) as disk:
        fault = partial(try_again_soon, at_steps((3, partial(fill, disk)), (6, (disk / "filler").unlink)))
        ended = on_disk(runs, disk, "train.checkpoint_every_steps=4", fault=fault)
        assert ended.codes == [0, 0], ended.said
        assert "the checkpoint of step 4 could not be written" in ended.said and "the checkpoint of step 6" not in ended.said
        lines = read_metrics(RunFolder(disk / "it").metrics)
        assert [line["step"] for line in lines if line["kind"] == "checkpoint"] == [6, 8]


def test_a_disk_that_stays_full_keeps_the_last_good_one(runs: ForkedRuns, finished: Path) -> None:
    with small_disk(runs.folder / "stays", 8) as disk:
        ended = on_disk(runs, disk, fault=at_steps((5, partial(fill, disk))))
        assert ended.codes == [1, 1], ended.said
        assert "error: the checkpoint of step 8 could not be written" in ended.said and "the last good one is of step 4" in ended.said
        assert "Traceback" not in ended.said
        check(disk / "it" / "checkpoints" / "step_00000004")
        (disk / "filler").unlink()
        ended = on_disk(runs, disk)
        assert ended.codes == [0, 0], ended.said
        assert_same_end(disk / "it", finished)


def before_export(action: Callable[[], object]) -> None:
    from pretrain import train

    if is_rank(0):
        wrap(train, "export", before=on_call(1, action))


def test_an_export_that_finds_no_room_can_be_made_up_for(runs: ForkedRuns) -> None:
    with small_disk(runs.folder / "exporting", 8) as disk:
        command = *[text for text in COMMAND if not text.startswith(("run.dir=", "run.export="))], f"run.dir={disk}", "run.name=it"
        ended = runs.run(*command, fault=partial(before_export, partial(fill, disk)))
        assert ended.codes == [1, 1], ended.said
        assert "error: the model could not be written to" in ended.said and "step_00000008 is whole" in ended.said
        assert "Traceback" not in ended.said
        (disk / "filler").unlink()
        ended = runs.run(*command)
        assert ended.codes == [0, 0] and (disk / "it" / "export" / "config.json").exists(), ended.said


def test_a_folder_that_becomes_read_only_is_no_reason_to_stop(runs: ForkedRuns, finished: Path) -> None:
    """The folder of checkpoints, from step 4 to step 6."""
    with small_disk(runs.folder / "readonly", 8) as disk:
        checkpoints = disk / "it" / "checkpoints"

        ended = on_disk(runs, disk, fault=at_steps((4, partial(lock, checkpoints)), (6, partial(mount, "umount", str(checkpoints)))))
        assert ended.codes == [0, 0], ended.said
        assert "the checkpoint of step 4 could not be written (Read-only file system)" in ended.said
        assert_same_end(disk / "it", finished)


@pytest.mark.parametrize("what", ["checkpoints", "."])
def test_a_folder_that_is_removed_comes_back(runs: ForkedRuns, finished: Path, what: str) -> None:
    folder = RunFolder(runs.folder / "runs" / f"removed_{len(what)}")
    ended = runs.run(*COMMAND, f"run.name={folder.path.name}", fault=at_steps((5, partial(shutil.rmtree, folder.path / what))))
    assert ended.codes == [0, 0], ended.said
    assert "Traceback" not in ended.said
    found, wanted = masters(folder.path), masters(finished)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    again = runs.run(*COMMAND, f"run.name={folder.path.name}")
    assert again.codes == [0, 0] and "is already finished" in again.said, again.said


def test_a_preparation_goes_on_when_there_is_room(runs: ForkedRuns) -> None:
    text = runs.folder / "larger.txt"
    text.write_text((runs.folder / "corpus.txt").read_text() * 40)
    with small_disk(runs.folder / "preparing", 1) as disk:
        command = *COMMAND, "data.paths=[larger.txt]", f"data.cache_dir={disk}", "run.name=prepared"
        (error,) = [line for line in runs.run(*command, ranks=1).said.splitlines() if line.startswith("error: ")]
        assert f"data.cache_dir={disk} cannot be written (No space left on device)" in error
        mount("mount", "-o", "remount,size=64m", str(disk))
        ended = runs.run(*command, ranks=1)
        assert ended.codes == [0], ended.said
