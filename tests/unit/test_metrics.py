"""metrics.jsonl as its readers see it."""

import json
from pathlib import Path

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
