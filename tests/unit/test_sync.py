"""`python -m pretrain.sync`: a run's metrics.jsonl becomes one run of W&B's, offline and, at a stand-in for its server, online."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from pretrain import sync
from pretrain.config.compose import compose
from pretrain.metrics import MetricsWriter, read_metrics
from pretrain.run_folder import RunFolder
from tests.wandb_records import recorded, rows, rows_of, steps
from tests.wandb_server import Server

KEY = "0123456789abcdef" * 3


def write_run(path: Path, *settings: str) -> MetricsWriter:
    """A run that was killed after step 3, went on from step 2 and has not ended: the lines that stand are 0, 1, 2, 5 and 6."""
    RunFolder(path).claim(compose([f"run.dir={path.parent}", f"run.name={path.name}", "run.seed=5", *settings]))
    writer = MetricsWriter(path / "metrics.jsonl")
    writer.write("start", step=0, unigram_loss=4.5, plan={"parameters": 12}, versions={"torch": "1"}, git=None)
    for step in (1, 2, 3):
        writer.write("train", step=step, loss=5.0 - step, **axes(step))
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st\n')
    writer.write("resume", step=2, versions={"torch": "2"}, git=None, **axes(2))
    writer.write("train", step=3, loss=1.5, **axes(3))
    return writer


def axes(step: int) -> dict[str, Any]:
    return {"samples": 8 * step, "tokens": 64 * step, "wall_seconds": 0.5 * step}


def plain(found: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Rows without W&B's own values."""
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in found]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # no netrc
    write_run(tmp_path / "it")
    yield tmp_path / "it"
    sync._give_up()  # W&B keeps the environment that it has once seen


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    """W&B's client goes there, with a key."""
    with Server().running() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server


def test_offline_it_writes_the_lines_that_stand_with_their_numbers(run: Path, capfd) -> None:
    assert sync.main([str(run), "--offline", "--project", "p"]) == 0
    (records,) = recorded(run)
    assert rows(records) == rows_of(read_metrics(run / "metrics.jsonl"))
    assert steps(records) == [0, 1, 2, 5, 6]
    about = next(record["run"] for record in records if record["type"] == "run")
    assert (about["project"], about["run_id"]) == ("p", (run / "wandb_id").read_text())
    config = about["config"]["update"]
    assert (config["plan"], config["versions"], config["run"]["seed"]) == ({"parameters": 12}, {"torch": "2"}, 5)
    assert records[-1]["exit"]["exit_code"] == 1  # it has not ended
    output, errors = capfd.readouterr()
    assert re.fullmatch(rf"{run}: 5 of 5 lines written to (.*/offline-run-\S+); upload them with: wandb sync \1\n", output)
    assert errors == ""


def test_a_second_upload_adds_what_is_new(run: Path, server: Server, capfd) -> None:
    told = []
    for _ in range(3):
        assert sync.main([str(run)]) == 0
        told.append(capfd.readouterr().out)
        if len(told) == 2:
            MetricsWriter(run / "metrics.jsonl").write("end", step=3, **axes(3))
    (name,) = server.rows
    assert name == (run / "wandb_id").read_text() and server.projects == {"pretrain"}
    assert [row["_step"] for row in server.rows[name]] == [0, 1, 2, 5, 6, 7]
    assert plain(server.rows[name]) == rows_of(read_metrics(run / "metrics.jsonl"))
    assert server.configs[name]["plan"]["value"] == {"parameters": 12}
    assert [re.search("[0-9]+ of [0-9]+ lines uploaded to http.*/pretrain/runs/", line) is not None for line in told] == [True] * 3
    assert [line.partition(": ")[2].split()[0] for line in told] == ["5", "0", "1"]
    assert not (run / "wandb").exists()


def test_runs_that_differ_in_their_seed_alone_have_one_seed_group(tmp_path: Path) -> None:
    groups = []
    for number, settings in enumerate((["run.seed=1"], ["run.seed=2"], ["run.seed=1", "optimizer.lr=0.5"])):
        write_run(tmp_path / str(number), *settings)
        groups.append(sync._read(tmp_path / str(number), None, None).init["config"]["seed_group"])
    assert groups[0] == groups[1] != groups[2] and "lr 0.5" in groups[2]


def no_folder(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "config.yaml").unlink()


def no_lines(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "metrics.jsonl").write_text("")


def no_key(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def bad_key(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")


def no_network(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(sync, "_INIT_SECONDS", 0.3)


def broken_wandb(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", None)


MISTAKES = {
    no_folder: r"is no run's folder \(it has no config.yaml\); give one, such as runs/NAME, or several",
    no_lines: "has no metrics.jsonl with lines in it; give the folder of a run that has begun",
    no_key: "W&B has no API key; run `wandb login`, set WANDB_API_KEY, or give --offline",
    bad_key: "W&B does not take .*/it .*invalid.*; see to the network, the key and the project, and give the same command again",
    no_network: r"W&B does not take .*/it \(.*\); see to the network, the key and the project, and give the same command again",
    broken_wandb: r"wandb does not work \(.*\); install it again",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake, run: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    mistake(run, monkeypatch)
    assert sync.main([str(run)]) == 2
    output, errors = capfd.readouterr()
    assert output == "" and re.fullmatch(rf"error: [^\n]*{MISTAKES[mistake]}\n", errors), errors


def test_no_run_is_uploaded_where_one_is_a_mistake(run: Path, server: Server, tmp_path: Path, capfd) -> None:
    for other, said in ((str(tmp_path / "nothing"), "nothing is no run's folder"), ("~nouserx/run", "~nouserx/run begins with a home")):
        assert sync.main([str(run), other]) == 2
        assert not server.rows and said in capfd.readouterr().err
