"""metrics.jsonl as its readers see it."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from pretrain.metrics import MetricsWriter, last, read_metrics


def write(path: Path, *lines: dict) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_resume_supersedes_what_came_after_its_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    before = [{"kind": "start", "step": 0}, *({"kind": "train", "step": step, "loss": 9.0} for step in (1, 2, 3, 4))]
    write(path, *before, {"kind": "resume", "step": 2}, {"kind": "train", "step": 3, "loss": 5.0})
    found = [(line["kind"], line["step"], line.get("loss")) for line in read_metrics(path)]
    assert found == [("start", 0, None), ("train", 1, 9.0), ("train", 2, 9.0), ("resume", 2, None), ("train", 3, 5.0)]


def test_a_torn_last_line_is_dropped_and_what_follows_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train", "step": 1}\n{"kind": "train", "st')
    writer = MetricsWriter(path)
    writer.write("train", step=2)
    writer.close()
    assert [line["step"] for line in read_metrics(path)] == [1, 2]


def test_lines_are_in_the_file_at_once_and_never_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path)
    writer.write("train", step=1)
    first = path.read_bytes()
    writer.write("train", step=2)
    assert path.read_bytes().startswith(first) and len(read_metrics(path)) == 2
    writer.close()


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path)
    writer.write("skip", step=1, grad_norm=float("nan"), loss=float("inf"))
    writer.close()
    assert read_metrics(path) == [{"kind": "skip", "step": 1, "grad_norm": None, "loss": None}]


def test_no_file_has_no_lines_and_no_last(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "none.jsonl") == [] and last([], "train") is None


def test_a_resume_at_a_position_keeps_what_was_skipped_before_it(tmp_path: Path) -> None:
    """Two batches skipped after step 3, a checkpoint, then one more that the run makes again."""
    path = tmp_path / "metrics.jsonl"
    skips = [{"kind": "skip", "step": 4, "samples": samples} for samples in (40, 50, 60)]
    write(path, {"kind": "train", "step": 3, "samples": 30}, *skips, {"kind": "resume", "step": 3, "samples": 50})
    assert [line["samples"] for line in read_metrics(path)] == [30, 40, 50, 50]


class Disk:
    """Takes `room` bytes, and after that none."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, descriptor: int, data: bytes) -> int:
        taken = min(self.room, len(data))
        self.room -= taken
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return _write(descriptor, data[:taken])


_write = os.write


def test_lines_wait_for_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    path, disk = tmp_path / "metrics.jsonl", Disk(room=70)
    monkeypatch.setattr(os, "write", disk.write)
    writer = MetricsWriter(path)
    for step in (1, 2, 3):
        writer.write("train", step=step, loss=0.5)
    assert [line["step"] for line in read_metrics(path)] == [1]  # the second is torn
    assert [record.message for record in caplog.records] == [
        f"warning: {path} cannot be written (No space left on device); its lines wait in memory"
    ]
    disk.room = 1000
    writer.write("train", step=4, loss=0.5)
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3, 4]
    assert caplog.records[-1].message == f"{path} can be written again; no line is missing"
    disk.room = 0
    writer.write("end", step=4)
    with pytest.raises(OSError, match="its last 1 lines are lost"):
        writer.close()


def test_a_removed_folder_comes_back_with_the_next_line(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    path.parent.mkdir()
    writer = MetricsWriter(path)
    writer.write("train", step=1)
    shutil.rmtree(path.parent)
    writer.write("train", step=2)
    writer.close()
    assert [line["step"] for line in read_metrics(path)] == [2]
