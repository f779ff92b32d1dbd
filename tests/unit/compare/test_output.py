"""How a comparison is shown: terminal, Markdown, CSV, plot and page."""

import csv
import dataclasses
import html.parser
import re
from pathlib import Path

import numpy as np
import pytest

from pretrain.compare import running
from pretrain.compare.__main__ import main
from pretrain.compare.page import render
from pretrain.compare.plot import as_svg
from pretrain.compare.summary import Summary
from pretrain.compare.table import as_csv, as_markdown, as_text
from pretrain.exit_codes import DONE
from tests.made_comparison import SETTINGS, THREE, world, write_run


def test_head_table_and_notes_are_in_every_form(summary: Summary):
    for text in (as_text(summary), as_markdown(summary), render(summary)):
        plain = re.sub(r"<[^>]*>|\\", "", text)
        assert "40 steps of 8 sequences of 32 tokens, 10,240 tokens in all" in plain
        assert "seeds 0, 1, 2, 3" in plain and "paired t-test" in plain and "no difference shown" in plain
    lines = list(csv.DictReader(as_csv(summary).splitlines()))
    assert [line["variant"] for line in lines] == [found.variant for found in summary.rows]
    assert float(lines[0]["loss_mean"]) == pytest.approx(np.mean(summary.rows[0].losses))


def test_the_plot_has_a_point_for_every_run_of_the_search(summary: Summary):
    drawn = as_svg(summary)
    for found in summary.rows:
        for rate, score in found.found.scores.items():
            assert f"<title>{found.variant}, lr {rate:g}: {score:.4f}</title>" in drawn


def test_the_page_is_well_formed_and_a_hostile_name_stays_text(summary: Summary):
    hostile = "<img src=x onerror=alert(1)>&\"'"
    rows = (dataclasses.replace(summary.rows[0], variant=hostile), *summary.rows[1:])
    page = render(dataclasses.replace(summary, folders=(Path(hostile),), rows=rows))
    assert "<img" not in page and page.count("&lt;img src=x") >= 3

    class Balanced(html.parser.HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: list) -> None:
            if tag not in ("meta",):
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    parser = Balanced()
    parser.feed(page)
    assert not parser.open


def test_the_command_writes_all_of_it_and_the_table_can_be_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(running, "start_all", lambda runs, launcher: {run.name: write_run(run, world) or DONE for run in runs})
    assert main([f"run.dir={tmp_path}", *SETTINGS, *THREE]) == 0
    folder = tmp_path / "compare-demo"
    assert {"comparison.yaml", "comparison.md", "comparison.csv", "comparison.svg", "comparison.html"} <= {
        path.name for path in folder.iterdir()
    }
    printed = capsys.readouterr().out
    assert main(["--table", str(folder), "--format", "markdown"]) == 0
    assert capsys.readouterr().out == (folder / "comparison.md").read_text()
    assert "no difference shown" in printed
