"""What comes out: tables, the page's text, plots, the command line."""

import base64
import csv
import errno
import hashlib
import io
import json
import os
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from threading import Thread

import pytest

from pretrain.report.__main__ import main
from pretrain.report.page import render
from pretrain.report.page_data import page_data
from pretrain.report.reading import read_runs
from pretrain.report.table import as_csv, as_markdown, as_text, bytes_text
from pretrain.report.watch import Latest, serve
from tests.made_curves import long_run, make_curves, write_lines

HOSTILE = "<img src=x onerror=alert(1)>|</script>{{script}}`*"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_curves(tmp_path / "runs" / "came", "came", final_loss=2.0)
    make_curves(tmp_path / "runs" / "adamw", "adamw", 3e-3, final_loss=2.5)
    make_curves(tmp_path / "runs" / "gpt", "came", objective="clm", final_loss=3.0, ending=None)
    return tmp_path / "runs"


MEMORY = {
    f"memory_{part}_bytes": size
    for part, size in dict(params=6, weights=4, masters=2, optimizer=5, optimizer_exp_avg=3, process=90).items()
}


def test_the_table_has_what_differs_as_columns_and_the_rest_below(folder: Path) -> None:
    head, *rows = as_text(read_runs([folder])).splitlines()
    assert head.split()[:5] == ["run", "state", "done", "optimizer", "lr"] and "seed" not in head and "perplexity" in head
    assert rows[0].split()[:6] == ["adamw", "finished", "100%", "adamw", "0.003", "mlm"]
    assert "2.5000" in rows[0] and "10 KiB" in rows[0] and "killed" in rows[2]
    told = "\n".join(rows)
    assert "the same in all: seed 0, ranks 2, zero.stage 2" in told
    assert "target: validation loss 2.5 (mlm), 3 (clm)" in told
    assert "came against adamw: validation loss -0.5000: one seed does not tell" in told


def test_runs_on_other_data_are_warned_of(folder: Path) -> None:
    lines = (folder / "came" / "metrics.jsonl").read_text().replace("f" * 64, "e" * 64)
    (folder / "came" / "metrics.jsonl").write_text(lines)
    assert "the prepared data differ within mlm" in as_text(read_runs([folder]))
    assert page_data(read_runs([folder]))["mixed"] == ["mlm"]


def test_no_name_steers_the_terminal() -> None:
    text = as_text([long_run("\x1b[2J\rmine", 10, ("loss",)), long_run("b", 10, ("loss",))])
    assert "?[2J?mine" in text and "\x1b" not in text and "\r" not in text


def test_the_target_may_be_given(folder: Path) -> None:
    cell = dict(zip(*csv.reader(io.StringIO(as_csv(read_runs([folder / "came"]), target=3.5))), strict=True))
    assert (cell["steps_to_target"], float(cell["hours_to_target"])) == ("20", 20 * 36 / 3600)


def test_csv_has_plain_values_of_every_column(folder: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(read_runs([folder])))))
    assert [row["run"] for row in rows] == ["adamw", "came", "gpt"]
    assert {"optimizer.lr", "run.seed", "ranks", "zero.stage", "loss", "tokens_per_second", "memory_peak_bytes", "hours"} <= set(rows[0])
    assert float(rows[0]["memory_peak_bytes"]) == 10240 and float(rows[0]["loss"]) == 2.5
    assert rows[2]["mlm_accuracy"] == "" and float(rows[2]["perplexity"]) > 20 and rows[2]["state"] == "killed"


def test_markdown_is_a_table_whatever_the_names_are(tmp_path: Path) -> None:
    run = read_runs([make_curves(tmp_path / "plain")])[0]
    lines = as_markdown([run, long_run(HOSTILE, 10, ("loss",))]).splitlines()
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in lines[:4]}
    assert len(bars) == 1 and r"\<img" in lines[3] and r"\|" in lines[3]


@pytest.mark.parametrize(("value", "text"), [(0, "0 B"), (2048, "2 KiB"), (3 * 2**20, "3 MiB"), (78.4 * 2**30, "78.4 GiB")])
def test_bytes_are_written_in_their_unit(value: float, text: str) -> None:
    assert bytes_text(value) == text


def test_the_page_holds_fifty_runs_of_twenty_thousand_points_in_three_megabytes() -> None:
    metrics = ("loss", "grad_norm", "update_rms", "tokens_per_second", "step_seconds", "data_seconds", "optimizer_seconds", "mfu", "other")
    optimizers = ("came", "adamw", "lamb", "adafactor", "sm3")
    runs = [long_run(f"run {number}", 20_000, metrics, number // 5, optimizers[number % 5]) for number in range(50)]
    page = render(page_data(runs)).encode()
    assert 2_500_000 < len(page) < 3_000_000  # the room is used


def test_few_runs_are_kept_whole() -> None:
    data = page_data([long_run(name, 20_000, ("loss",)) for name in ("a", "b")])
    assert all(series["k"] == 1 for run in data["runs"] for series in run["series"].values())


def test_the_page_may_load_nothing_and_runs_its_own_script_alone(folder: Path) -> None:
    page = render(page_data(read_runs([folder])))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "connect-src" not in policy and "http" not in policy
    for element, directive in (("style", "style-src"), ("script", "script-src")):
        (content,) = re.findall(rf"<{element}>(.*?)</{element}>", page, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page) and "@import" not in page
    assert "innerHTML" not in page and "insertAdjacentHTML" not in page


def test_texts_of_runs_stay_inside_the_data(tmp_path: Path) -> None:
    page = render(page_data([long_run(HOSTILE, 10, ("loss",)), long_run("other", 10, ("loss",), optimizer="</script><b>")]))
    assert "<img" not in page and page.count("</script>") == 2
    (held,) = re.findall(r'id="data">(.*?)</script>', page, flags=re.DOTALL)
    assert json.loads(held)["runs"][0]["name"] == HOSTILE


def test_any_further_number_can_be_charted(tmp_path: Path) -> None:
    folder = make_curves(tmp_path / "run")
    lines = [{"kind": "train", "step": step, "forward_seconds": 0.1 * step, "clip_share": 0.5} | MEMORY for step in (1, 2)]
    write_lines(folder / "metrics.jsonl", lines)
    data = page_data(read_runs([folder]))
    found = {curve["key"]: (curve["title"], curve["unit"]) for curve in data["curves"]}
    assert found["train/forward_seconds"] == ("Forward", "seconds") and found["train/clip_share"] == ("Clip share", "share")
    assert data["runs"][0]["memory"] == {
        "weights": 4.0,
        "masters": 2.0,
        "optimizer": 5.0,
    }  # params are the first two, exp_avg is of the last


# The command line -----------------------------------------------------------------------------------------------------------------


def test_the_end_of_the_file_s_name_says_the_format(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, begins in (("a/page.html", "<!doctype html>"), ("t.csv", "run,state"), ("t.md", "| run"), ("t.txt", "run")):
        assert main([str(folder), "-o", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_text().startswith(begins)
    assert capsys.readouterr().out.splitlines()[0] == f"wrote {tmp_path / 'a/page.html'}"
    assert main([str(folder), "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("run,state")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: RUN"),
        (["{runs}", "--format", "pdf"], "invalid choice: 'pdf'"),
        (["{runs}/nothing"], "does not exist"),
        (["{runs}", "-o", "{runs}"], "cannot be written (Is a directory)"),
        (["{runs}", "-o", "page.xyz"], "the end of page.xyz names no format; give one of .html, .csv"),
        (["{runs}", "--watch", "-o", "x.html"], "--watch writes no file"),
        (["{runs}", "--watch", "--port", "70000"], "--port: 70000 is not valid; give a number up to 65535"),
        (["{runs}", "--target", "nan", "-o", "x.html"], "--target: nan is not valid; give a loss"),
        (["{runs}", "-o", "~nouserx/x.html"], "--output ~nouserx/x.html begins with a home that this machine does not know"),
        (["~nouserx/runs"], "~nouserx/runs begins with a home that this machine does not know"),
        (["x" * 300], "is longer than the name of a file can be"),
        (["{runs}/gpt/wandb"], "run-1.wandb cannot be read (Is a directory); see to its permissions"),
    ],
)
def test_mistakes_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    (folder / "gpt" / "wandb" / "offline-run-1" / "run-1.wandb").mkdir(parents=True)
    assert main([argument.format(runs=folder) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line


def test_a_folder_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert main([str(folder)]) == 2
    assert capsys.readouterr().err == f"error: {folder} cannot be read (Permission denied); see to its permissions\n"


def test_plots_are_drawn_per_curve_and_objective(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    make_curves(folder / "came_too", "came", seed=1, final_loss=2.1)
    assert main([str(folder), "--format", "svg", "-o", str(tmp_path / "figures"), "--x", "wall"]) == 0
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"eval_loss_mlm.svg", "eval_loss_clm.svg", "eval_mlm_accuracy_mlm.svg", "eval_perplexity_clm.svg", "train_loss_mlm.svg"} <= names
    drawn = (tmp_path / "figures" / "eval_loss_mlm.svg").read_text()
    assert "came, 2 seeds" in drawn and "wall time (hours)" in drawn


# Watching -------------------------------------------------------------------------------------------------------------------------


def test_the_server_gives_newer_data_and_none_to_strangers(folder: Path) -> None:
    server = serve(Latest([str(folder)], page_data), 0)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"

    def get(path: str, **headers: str):
        return urllib.request.urlopen(urllib.request.Request(address + path, headers=headers), timeout=30)

    try:
        page = get("/").read().decode()
        assert "connect-src 'self'" in page and '"watched":true' in page
        first = get("/data.json")
        assert len(json.load(first)["runs"]) == 3
        with pytest.raises(urllib.error.HTTPError, match="304"):
            get("/data.json", **{"If-None-Match": first.headers["ETag"]})
        make_curves(folder / "new", "lamb")
        with (folder / "came" / "metrics.jsonl").open("a") as file:
            file.write('{"kind": "eval", "step": 41, "loss": 1.25}\n')
        newer = get("/data.json", **{"If-None-Match": first.headers["ETag"]})
        cells = {run["name"]: [text for _, text in run["cells"]] for run in json.load(newer)["runs"]}
        assert len(cells) == 4 and "1.2500" in cells["came"]
        for path, headers, code in (("/etc/passwd", {}, "404"), ("/data.json", {"Host": "example.org"}, "403")):
            with pytest.raises(urllib.error.HTTPError, match=code):
                get(path, **headers)
        shutil.rmtree(folder)
        with pytest.raises(urllib.error.HTTPError, match="503"):
            get("/data.json")
    finally:
        server.shutdown()
        server.server_close()
