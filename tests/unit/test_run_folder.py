"""What a command finds in a run's folder, and what it leaves alone."""

import errno
import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pretrain.checkpoint import manifest
from pretrain.config.compose import compose
from pretrain.config.schema import Config
from pretrain.data.mixture import Mixture
from pretrain.errors import UserError
from pretrain.run_folder import RunFolder


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return compose([f"run.dir={tmp_path}", "run.name=it"])


@pytest.fixture
def folder(config: Config) -> RunFolder:
    return RunFolder.of(config)


def write(folder: RunFolder, *lines: dict) -> None:
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))


def add_checkpoint(folder: RunFolder, step: int) -> None:
    temporary = folder.checkpoint_folder.begin(step)
    (temporary / ".metadata").touch()
    manifest.write(temporary, {"step": step}, manifest.described(temporary, [".metadata"]), {})
    folder.checkpoint_folder.publish(step)


START = {"kind": "start", "step": 0, "data_fingerprint": "abc"}


def test_looking_changes_nothing(config: Config, folder: RunFolder) -> None:
    found = folder.inspect(config)
    assert (found.candidates, found.begun, found.finished) == ((), False, False)
    assert not folder.path.exists()


def test_a_run_that_never_started_begins_from_the_beginning(config: Config, folder: RunFolder) -> None:
    folder.claim(config)
    assert folder.inspect(config, "abc").begun is False


def test_a_checkpoint_is_gone_on_from(config: Config, folder: RunFolder) -> None:
    folder.claim(config)
    write(folder, START)
    add_checkpoint(folder, 20)
    add_checkpoint(folder, 40)
    found = folder.inspect(config, "abc")
    assert (found.candidates, found.begun, found.finished) == ((folder.checkpoint(40), folder.checkpoint(20)), True, False)
    assert folder.latest_checkpoint() == folder.checkpoint(40)


@pytest.mark.parametrize(("end", "finished"), [({}, True), ({"diverged": True}, False)])
def test_a_run_that_diverged_is_not_finished(config: Config, folder: RunFolder, end: dict, finished: bool) -> None:
    folder.claim(config)
    write(folder, START, {"kind": "end", "step": 40, **end})
    assert folder.inspect(config, "abc").finished is finished


def test_other_data_are_refused(config: Config, folder: RunFolder) -> None:
    folder.claim(config)
    write(folder, START)
    with pytest.raises(UserError, match="the prepared data"):
        folder.inspect(config, "def")


def test_sources_in_another_order_are_other_samples_though_their_fingerprint_is_the_same(config: Config, folder: RunFolder) -> None:
    first, second = Mixture({"wiki": 1, "books": 1}), Mixture({"books": 1, "wiki": 1})
    positions = np.arange(8)
    assert first.signature == second.signature
    drawn = [[mixture.names[number] for number in mixture.deal(positions)[0]] for mixture in (first, second)]
    assert drawn[0] != drawn[1]
    folder.claim(config)
    write(folder, START | {"sources": first.names})
    assert folder.inspect(config, "abc", first.names).begun
    with pytest.raises(UserError, match="the order of the data's sources: wiki, books -> books, wiki"):
        folder.inspect(config, "abc", second.names)
    write(folder, START)  # by a version that did not record it
    assert folder.inspect(config, "abc", second.names).begun


def test_two_processes_do_not_write_one_run(folder: RunFolder) -> None:
    code = f"from pathlib import Path; from pretrain.run_folder import RunFolder; RunFolder(Path({str(folder.path)!r})).lock()"
    held = folder.lock()
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "is being trained by another process" in other.stderr
    held.release()
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_report_that_looks_at_the_lock_does_not_keep_a_run_from_starting(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.lock().release()
    look, flock = (folder.path / ".lock").open("rb"), fcntl.flock
    flock(look, fcntl.LOCK_SH)

    def has_looked(file: int, operation: int) -> None:
        try:
            flock(file, operation)
        except BlockingIOError:
            look.close()
            raise

    monkeypatch.setattr(fcntl, "flock", has_looked)
    folder.lock()
    assert look.closed


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_without_flock_the_lock_of_a_process_that_died_on_another_node_is_named(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", missing)
    folder.lock().release()
    lock = folder.path / ".lock"
    lock.write_text("4711\nanother-node\n")
    with pytest.raises(UserError, match=f"another process; .*, or, if no process does, delete {re.escape(str(lock))}$"):
        folder.lock()
    lock.unlink()
    folder.lock()


def test_a_folder_without_its_config_is_not_written_over(config: Config, folder: RunFolder) -> None:
    folder.path.mkdir()
    write(folder, START)
    with pytest.raises(UserError, match="without its config.yaml"):
        folder.inspect(config)


@pytest.mark.parametrize("name", ["", "step_00000099"])
def test_a_latest_that_names_nothing_is_no_reason_to_lose_the_others(config: Config, folder: RunFolder, name: str) -> None:
    folder.claim(config)
    write(folder, START)
    add_checkpoint(folder, 20)
    (folder.checkpoints / "latest").write_text(name)
    assert folder.inspect(config).candidates == (folder.checkpoint(20),)
    config.run.resume = "must"
    with pytest.raises(UserError, match="no checkpoint that .*latest names"):
        folder.inspect(config)


def test_readers_take_the_newest_that_is_whole(folder: RunFolder) -> None:
    add_checkpoint(folder, 20)
    add_checkpoint(folder, 40)
    (folder.checkpoint(40) / ".metadata").unlink()
    assert folder.latest_checkpoint() == folder.checkpoint(20)


def test_changes_without_effect_on_the_mathematics_are_listed(config: Config, folder: RunFolder) -> None:
    folder.claim(config)
    write(folder, START)
    config.zero.stage, config.train.micro_batch_size = 3, 8
    assert folder.inspect(config, "abc").changed == ("train.micro_batch_size: 32 -> 8", "zero.stage: 2 -> 3")


def test_a_config_of_another_kind_is_one_line(config: Config, folder: RunFolder) -> None:
    folder.claim(config)
    folder.config.write_bytes(b"\xff\xfe nothing of ours")
    with pytest.raises(UserError, match="config.yaml"):
        folder.inspect(config)


def test_the_run_keeps_the_tokenizer_of_its_data(folder: RunFolder, tmp_path: Path) -> None:
    for text in ("first", "second", "second"):
        given = tmp_path / "prepared"
        given.mkdir(exist_ok=True)
        (given / "tokenizer.json").write_text(text)
        folder.path.mkdir(exist_ok=True)
        folder.keep_tokenizer(given)
        assert {path.name: path.read_text() for path in folder.tokenizer.iterdir()} == {"tokenizer.json": text}
        assert [path.name for path in folder.path.iterdir()] == ["tokenizer"]
