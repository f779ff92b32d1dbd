"""`python -m pretrain.compare`: fair by construction, unequal comparisons refused, and statistics with known answers."""

import csv
import dataclasses
import html.parser
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pretrain.compare import design as designs
from pretrain.compare import running
from pretrain.compare.__main__ import main
from pretrain.compare.composing import read_command
from pretrain.compare.page import render
from pretrain.compare.plot import as_svg
from pretrain.compare.rows import Row
from pretrain.compare.summary import Summary, summarise
from pretrain.compare.table import as_csv, as_markdown, as_text
from pretrain.compare.variants import ADVICE, VARIANTS
from pretrain.config.consistency import mathematical_settings
from pretrain.exit_codes import DONE, STOPPED_ON_REQUEST
from pretrain.run_folder import RunFolder
from tests.made_comparison import SETTINGS, make_comparison, write_run

OPTIMA = {"came": (4e-4, 2.0), "adamw": (1e-3, 2.1), "lamb": (1e-2, 2.1)}
GRIDS = ("compare.lrs.came=[2e-4,4e-4,8e-4]", "compare.lrs.adamw=[5e-4,1e-3,2e-3]", "compare.lrs.lamb=[5e-3,1e-2,2e-2]")
THREE = ("compare.optimizers=[came,adamw,lamb]", "compare.seeds=4", *GRIDS)


def world(variant: str, lr: float, seed: int) -> float | None:
    """CAME 0.1 nats better than AdamW, LAMB exactly as good; noise of 0.01 between seeds; far too high rates diverge."""
    optimum, loss = OPTIMA[variant]
    return None if lr > 7 * optimum else loss + 0.1 * abs(np.log2(lr / optimum)) + random.Random(f"{variant} {seed}").gauss(0, 0.01)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        return make_comparison(tmp_path_factory.mktemp("runs"), world, *THREE, monkeypatch=monkeypatch)


@pytest.fixture(scope="module")
def summary(made) -> Summary:
    return summarise({made.folder: made.design})


def row(summary: Summary, name: str) -> Row:
    return next(row for row in summary.rows if row.variant == name)


# What is found ----------------------------------------------------------------------------------------------------------------


def test_each_is_judged_at_its_own_best_rate_over_all_seeds(summary: Summary):
    for name, (optimum, _) in OPTIMA.items():
        found = row(summary, name)
        assert found.found.best == pytest.approx(optimum) and not found.found.at_edge
        assert found.losses == [pytest.approx(world(name, optimum, seed)) for seed in range(4)]


def test_a_difference_that_is_there_is_found_and_one_that_is_not_is_not(summary: Summary):
    assert row(summary, "came").word == "better" and row(summary, "came").p < 0.01
    assert row(summary, "lamb").word == "no difference shown" and row(summary, "lamb").p > 0.05
    assert row(summary, "adamw").word == "reference" and summary.baseline == "adamw"
    assert summary.rows[0].variant == "came"


def test_the_probabilities_are_scipys_paired_test_adjusted_by_holm(summary: Summary):
    stats = pytest.importorskip("scipy.stats")
    adamw = row(summary, "adamw").losses
    plain = {name: stats.ttest_rel(row(summary, name).losses, adamw).pvalue for name in ("came", "lamb")}
    smaller, larger = sorted(plain, key=plain.get)
    assert row(summary, smaller).p == pytest.approx(2 * plain[smaller], rel=1e-5)
    assert row(summary, larger).p == pytest.approx(max(plain[larger], 2 * plain[smaller]), rel=1e-5)


def test_the_interval_is_scipys(summary: Summary):
    stats = pytest.importorskip("scipy.stats")
    came, adamw = row(summary, "came"), row(summary, "adamw")
    interval = stats.ttest_rel(came.losses, adamw.losses).confidence_interval(0.95)
    assert (came.against.low, came.against.high) == pytest.approx((interval.low, interval.high), rel=1e-5)


def test_what_a_seed_does_to_all_alike_hides_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def luck(variant: str, lr: float, seed: int) -> float | None:
        return world(variant, lr, seed) + 0.5 * seed

    made = make_comparison(tmp_path, luck, *THREE, monkeypatch=monkeypatch)
    found = summarise({made.folder: made.design})
    assert np.std(row(found, "came").losses) > 0.5 and row(found, "came").word == "better"
    assert row(found, "lamb").word == "no difference shown"


def test_steps_and_tokens_are_to_adamws_mean_final_loss(summary: Summary):
    target = np.mean(row(summary, "adamw").losses)
    # The loss falls by 3 nats over 40 steps in a line, and every second step is evaluated.
    assert row(summary, "adamw").steps_to_target == [40] * 4
    expected = [next(step for step in range(2, 41, 2) if loss + 3 * (40 - step) / 40 <= target) for loss in row(summary, "came").losses]
    assert row(summary, "came").steps_to_target == expected
    (line,) = [line for line in csv.DictReader(as_csv(summary).splitlines()) if line["variant"] == "came"]
    assert float(line["tokens_to_target"]) == pytest.approx(np.mean(expected) * 8 * 32)


def test_one_seed_is_said_not_to_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = make_comparison(tmp_path, world, *THREE, "compare.seeds=1", monkeypatch=monkeypatch)
    rows = summarise({made.folder: made.design}).rows
    assert {found.variant: found.word for found in rows} == {
        "came": "one seed does not tell",
        "adamw": "reference",
        "lamb": "one seed does not tell",
    }


def test_rates_that_diverged_and_the_edge_of_the_grid_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = ("compare.optimizers=[came,adamw]", "compare.seeds=2", "compare.lrs.came=[2e-4,4e-4,3.2e-3]", "compare.lrs.adamw=[1e-4]")
    made = make_comparison(tmp_path, world, *settings, "compare.most_rates=3", monkeypatch=monkeypatch)
    summary = summarise({made.folder: made.design})
    assert row(summary, "came").diverged_rates == [3.2e-3]
    assert row(summary, "adamw").found.at_edge and list(row(summary, "adamw").found.scores) == [5e-5, 1e-4, 2e-4]
    text = as_text(summary)
    assert "adamw: the best rate, 0.0002, lies at the edge of the 3 tried; a better may lie beyond" in text
    assert "0.0002 (edge)" in text and "0.0032: diverged" in text


def test_a_variant_that_diverges_everywhere_has_no_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = ("compare.optimizers=[came,adamw]", "compare.seeds=2", "compare.lrs.came=[1e-1,2e-1]", "compare.most_rates=3", GRIDS[1])
    made = make_comparison(tmp_path, world, *settings, monkeypatch=monkeypatch)
    summary = summarise({made.folder: made.design})
    assert summary.rows[-1].variant == "came" and summary.rows[-1].word == "diverged"
    assert not [note for note in summary.notes if "NOT finished" in note]
    assert render(summary) and as_svg(summary) and as_csv(summary)


def test_without_a_difference_the_test_cries_wolf_as_often_as_it_says():
    """Of 600 comparisons of two equal settings, about 5 in 100 have p below 0.05: 3 standard deviations of the count to either side."""
    from pretrain.report.significance import paired_difference

    rng = np.random.default_rng(0)
    found = [paired_difference(list(rng.normal(size=4)), list(rng.normal(size=4))).p < 0.05 for _ in range(600)]
    assert 0.023 < np.mean(found) < 0.077


# How it is shown --------------------------------------------------------------------------------------------------------------


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


# Going on ---------------------------------------------------------------------------------------------------------------------


def test_a_comparison_killed_in_the_middle_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made):
    asked = read_command([f"run.dir={tmp_path}", *SETTINGS, *THREE], None)
    done: list[str] = []

    def start_all(runs: list, launcher: None) -> dict:
        codes = {}
        for run in runs:
            if len(done) in (2, 7, 13) and run.name not in done:
                done.append(run.name)  # asked to stop: its own command would go on
                return codes | {run.name: STOPPED_ON_REQUEST}
            write_run(run, world)
            done.append(run.name)
            codes[run.name] = DONE
        return codes

    monkeypatch.setattr(running, "start_all", start_all)
    codes = []
    while DONE not in codes:
        with running.begun(asked, None) as comparison:
            codes.append(running.run_all(comparison, None))
    assert codes == [STOPPED_ON_REQUEST] * 3 + [DONE]
    assert as_csv(summarise({comparison.folder: comparison.design})) == as_csv(summarise({made.folder: made.design}))


def test_seeds_rates_and_optimizers_can_be_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_comparison(tmp_path, world, "compare.optimizers=[came]", "compare.seeds=2", GRIDS[0], monkeypatch=monkeypatch)
    more = ("compare.optimizers=[adamw]", "compare.seeds=3", GRIDS[1])
    made = make_comparison(tmp_path, world, *more, monkeypatch=monkeypatch)
    rows = {found.variant: len(found.losses) for found in summarise({made.folder: made.design}).rows}
    assert rows == {"adamw": 3, "came": 2}
    assert "NOT finished: came" in as_text(summarise({made.folder: made.design}))


def test_a_run_that_fails_ends_the_command_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(running, "start_all", lambda runs, launcher: {run.name: 7 for run in runs})
    assert main([f"run.dir={tmp_path}", *SETTINGS, *THREE]) == 7
    assert "has not come to its end (exit code 7); the same command goes on" in capsys.readouterr().err


# Fair by construction ---------------------------------------------------------------------------------------------------------


def test_all_runs_of_a_comparison_agree_in_everything_but_the_optimizer_and_its_clipping():
    same = {"adamw_no_clip", "adamw_beta2_0.999"}  # as adamw, where the experiment has neither clipping nor another beta2
    names = [name for name in VARIANTS if name not in same]
    grids = [f"compare.lrs.{name}=[1e-3,2e-3]" for name in names]
    comparison = read_command([*SETTINGS, f"compare.optimizers=[{','.join(names)}]", *grids], None)
    assert {grid.rates for grid in comparison.design.grids.values()} == {(1e-3, 2e-3)}
    every = [mathematical_settings(config) for config in comparison.configs.values()]
    differing = {key for settings in every for key in {*settings, *every[0]} if settings.get(key) != every[0].get(key)}
    assert all(key.startswith("optimizer.") or key == "train.grad_clip" for key in differing)


def test_the_grid_is_centred_on_the_papers_advice_for_the_batch():
    comparison = read_command(["train.global_batch_size=32768", "train.micro_batch_size=8", "compare.optimizers=[lamb,adamw]"], None)
    assert comparison.design.grids["lamb"].rates == (1.25e-3, 2.5e-3, 5e-3, 1e-2, 2e-2)
    assert comparison.design.grids["adamw"].rates[2] == pytest.approx(1e-4 * np.sqrt(128), rel=0.05)
    assert ADVICE.keys() == {"came", "adamw", "lamb", "adafactor", "sm3"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("optimizer=came", "optimizer=came: a comparison sets optimizer itself; give compare.optimizers=[came,adamw]"),
        ("optimizer.lr=1e-3", "a comparison sets optimizer.lr itself; give compare.lrs.NAME=[1e-4,2e-4]"),
        ("compare.optimizers=[came,adam]", "compare.optimizers: there is no 'adam'; choose of adamw, came"),
        ("compare.optimizers=[came,came]", "compare.optimizers=[...,came,...,came] is not valid; give each once"),
        ("compare.optimizers=[]", "compare.optimizers=[] is not valid; give at least one"),
        ("compare.seeds=0", "compare.seeds=0 is not valid; give how many (1 or more), or a list of different seeds"),
        ("compare.seeds=[1,1]", "compare.seeds=[1, 1] is not valid"),
        ("compare.rates=0", "compare.rates=0 is not valid; give a number above 0"),
        ("compare.rates=x", "compare.rates=x has the wrong type"),
        ("compare.lrs.came=[0]", "compare.lrs.came=[0] is not valid; give different numbers above 0"),
        ("compare.lrs.came=fast", "compare.lrs.came=fast is not valid; give different numbers above 0"),
        ("compare.lrs.lion=[1e-3]", "compare.lrs.lion: lion is not among compare.optimizers"),
        ("compare.grid=3", "there is no setting 'compare.grid'; compare has name, optimizers, seeds"),
        ("compare.variants.x=[optimizer.beta1=0.8] compare.optimizers=[x]", "compare.variants.x chooses no optimizer; add optimizer=NAME"),
        *(
            (
                f"compare.variants.x=[optimizer=came,{setting}] compare.optimizers=[came,x]",
                f"{setting} would make its runs unequal to the others",
            )
            for setting in (
                "train.num_steps=80",
                "schedule=cosine",
                "train.eval_samples=16",
                "data.paths=x",
                "run.init_from=y",
                "zero=stage1",
            )
        ),
        ("compare.variants.a/b=[optimizer=came]", "compare.variants='a/b' is not valid; give names of letters"),
        ("compare.seeds=[0,99999999999999999999]", "compare.seeds=[0, 99999999999999999999] is not valid"),
        ("compare.seeds=[0,1] run.seed=3", "run.seed=3: a comparison sets run.seed itself; give all of them in compare.seeds"),
        ("run.dry_run=true", "run.dry_run=true: a comparison sets run.dry_run itself; give --dry-run"),
        ("train.micro_batch_size=auto", "train.micro_batch_size=auto may find another one for each optimizer"),
        ("compare.optimizers=[adamw,adamw_beta2_0.999]", "adamw and adamw_beta2_0.999 are the same optimizer with these settings"),
        ("compare.variants.x=[optimizer=came,optimizer.gamma=1] compare.optimizers=[x]", "in x: there is no setting 'optimizer.gamma'"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(settings: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main([f"run.dir={tmp_path}", *SETTINGS, *settings.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "train.num_steps=80",
            "holds a comparison of other runs (train.num_steps: 40 and 80; train.eval_every_steps: 2 and 4), and unequal",
        ),
        ("compare.seeds=2", "compares over the seeds 0, 1, 2, 3, and 0, 1 are not those and more"),
        ("compare.seeds=[4,5,6,7]", "compares over the seeds 0, 1, 2, 3, and 4, 5, 6, 7 are not those and more"),
        ("model.dropout=0.2", "(model.dropout: 0.0 and 0.2)"),
    ],
)
def test_another_comparison_in_the_same_folder_is_refused_and_nothing_changed(
    made, settings: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    shutil.copytree(made.folder, tmp_path / made.folder.name)
    before = (tmp_path / made.folder.name / designs.FILE).read_text()
    assert main([f"run.dir={tmp_path}", *SETTINGS, *THREE, *settings.split()]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / made.folder.name / designs.FILE).read_text() == before


def two(tmp_path: Path, first: tuple[str, ...], second: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name, optimizer, settings in (("one", "came", first), ("other", "adamw", second)):
        own = (f"compare.name={name}", f"compare.optimizers=[{optimizer}]", GRIDS[optimizer == "adamw"])
        make_comparison(tmp_path, world, "compare.seeds=2", *own, *settings, monkeypatch=monkeypatch)
    return [str(tmp_path / "one"), str(tmp_path / "other")]


def test_equal_comparisons_can_stand_in_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    assert main(["--table", *two(tmp_path, (), (), monkeypatch)]) == 0
    assert re.search(r"^came .*^adamw ", capsys.readouterr().out, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (("train.num_steps=60",), "are not equal (train.num_steps: 40 and 60; train.eval_every_steps: 2 and 3)"),
        (("train.global_batch_size=16",), "are not equal (train.global_batch_size: 8 and 16)"),
        (("compare.seeds=[0,5]",), "are not equal (seeds: 0, 1 and 0, 5)"),
        (("compare.seeds=3",), "are not equal (seeds: 0, 1 and 0, 1, 2)"),
        (("model.num_layers=3",), "are not equal (model.num_layers: 2 and 3)"),
    ],
)
def test_unequal_comparisons_cannot(
    second: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    folders = two(tmp_path, (), second, monkeypatch)
    capsys.readouterr()
    assert main(["--table", *folders]) == 2
    assert message in capsys.readouterr().err


def changed(made, folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of the comparison in which one file holds something else."""
    shutil.copytree(made.folder, folder)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    return folder


RUN = "came-lr_0.0004-seed_2"


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("config.yaml", "num_steps: 40", "num_steps: 41", "is not the run that its comparison needs (train.num_steps: 41 and 40)"),
        ("config.yaml", "lr: 0.0004", "lr: 0.0005", "is not the run that its comparison needs (optimizer.lr: 0.0005 and 0.0004)"),
        (
            "config.yaml",
            "eval_samples: 2048",
            "eval_samples: 9",
            "is not the run that its comparison needs (train.eval_samples: 9 and 2048)",
        ),
        ("metrics.jsonl", "f" * 64, "e" * 64, "were trained on different data"),
        ("metrics.jsonl", '"kind": "start",', '"kind": "start", "init_from": {"revision": "abc"},', "were begun with different weights"),
        ("metrics.jsonl", '"tokens": 10240', '"tokens": 10000', "has seen 10,000 tokens, where its comparison needs 10,240"),
    ],
)
def test_a_run_that_is_not_equal_is_refused(
    made, file: str, old: str, new: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert main(["--table", str(changed(made, tmp_path / "copy", f"{RUN}/{file}", old, new))]) == 2
    assert message in capsys.readouterr().err


def test_skipped_batches_are_told_and_no_reason_to_refuse(made, tmp_path: Path):
    folder = changed(made, tmp_path / "copy", f"{RUN}/metrics.jsonl", '"tokens": 10240', '"tokens": 10496')
    file = folder / RUN / "metrics.jsonl"
    file.write_text(file.read_text().replace('"skipped_steps": 0', '"skipped_steps": 1'))
    assert f"NOT equal: {RUN} skipped 1 batches, and trained on the next ones instead" in summarise({folder: made.design}).head


def test_the_score_is_that_of_the_last_step_and_of_no_earlier_one(made, tmp_path: Path):
    """A run whose loss is no number at the end has diverged, whatever it was before; nobody is judged by the seeds that are left."""
    file = made.folder / RUN / "metrics.jsonl"
    last = file.read_text().splitlines()[-2]
    assert '"kind": "eval"' in last
    loss = re.search(r'"loss": ([0-9.]+)', last)[0]
    folder = changed(made, tmp_path / "copy", f"{RUN}/metrics.jsonl", last, last.replace(loss, '"loss": null'))
    came = row(summarise({folder: made.design}), "came")
    assert came.word == "diverged (1 of 4 seeds)" and came.p is None and len(came.losses) == 3
    assert summarise({folder: made.design}).rows[-1].variant == "came"


def test_files_of_a_kill_do_not_stop_the_comparison(made, tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    (folder / RUN / "metrics.jsonl").write_text('{"kind": "sta')
    assert row(summarise({folder: made.design}), "came").word == "not finished"
    (folder / RUN / "config.yaml").write_text("")
    (folder / RUN / "metrics.jsonl").write_text((made.folder / RUN / "metrics.jsonl").read_text())
    assert main(["--table", str(folder)]) == 2
    assert "config.yaml cannot be read; put the file back" in capsys.readouterr().err
    (folder / designs.FILE).write_bytes(b"\xff\xfe")
    assert main(["--table", str(folder)]) == 2
    assert "cannot be read; delete it, and the comparison's whole command finds its runs again" in capsys.readouterr().err


def test_two_commands_cannot_be_at_work_on_one_comparison(tmp_path: Path, capsys: pytest.CaptureFixture):
    command = [f"run.dir={tmp_path}", *SETTINGS, *THREE]
    with running.begun(read_command(command, None), None) as comparison:
        before = (comparison.folder / designs.FILE).read_text()
        assert main([*command, "compare.seeds=9"]) == 2
    assert (comparison.folder / designs.FILE).read_text() == before
    assert "another command is at work on" in capsys.readouterr().err


def test_runs_that_jobs_still_train_are_not_started_again(tmp_path: Path, capsys: pytest.CaptureFixture):
    command = [f"run.dir={tmp_path}", *SETTINGS, *THREE]
    with running.begun(read_command(command, None), None) as comparison:
        run = comparison.run(running.wanted(comparison, {})[0])
    held = RunFolder.of(run.config).lock()
    assert main(command) == 2
    assert f"1 of its runs are still being trained ({run.name})" in capsys.readouterr().err
    held.release()


def test_rates_that_are_added_lose_no_run_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The grid has grown to its best rate by itself; a further rate far above does not undo that."""
    settings = ("compare.optimizers=[adamw]", "compare.seeds=1")
    make_comparison(tmp_path, world, *settings, "compare.lrs.adamw=[1.25e-4,2.5e-4]", monkeypatch=monkeypatch)
    made = make_comparison(tmp_path, world, *settings, "compare.lrs.adamw=[8e-3]", monkeypatch=monkeypatch)
    found = row(summarise({made.folder: made.design}), "adamw").found
    assert found.best == 1e-3 and list(found.scores) == [1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3, 8e-3]
    again = make_comparison(tmp_path, world, *settings, monkeypatch=monkeypatch)
    assert again.design.grids == made.design.grids, "without rates of its own a command keeps the grid that there is"


def test_the_baseline_is_never_chosen_by_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = ("compare.variants.slow=[optimizer=adamw,optimizer.beta2=0.9999]", "compare.lrs.slow=[1e-3]", *GRIDS[::2])
    monkeypatch.setitem(OPTIMA, "slow", (1e-3, 2.5))
    settings = ("compare.optimizers=[came,lamb,slow]", "compare.seeds=2", *own)
    made = make_comparison(tmp_path / "a", world, *settings, monkeypatch=monkeypatch)
    found = summarise({made.folder: made.design})
    assert found.baseline == "slow" and row(found, "slow").word == "reference"
    assert "slow: beta2 0.9999" in found.notes and "against slow" in as_text(found)
    settings = ("compare.optimizers=[lamb,came]", "compare.seeds=2", *GRIDS[::2])
    made = make_comparison(tmp_path / "b", world, *settings, monkeypatch=monkeypatch)
    assert summarise({made.folder: made.design}).baseline == "lamb"


def test_an_unequal_search_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = ("compare.optimizers=[came,adamw]", "compare.seeds=1", GRIDS[0], "compare.lrs.adamw=[1e-5,1e-3,1e-1,1]")
    made = make_comparison(tmp_path, world, *settings, monkeypatch=monkeypatch)
    found = summarise({made.folder: made.design})
    assert "NOT equal: the number of rates tried is 3 for came, 4 for adamw" in found.head
    assert "adamw: the rates next to the best, 0.001, are up to a factor of 100 away" in found.notes


def test_a_run_that_went_on_elsewhere_is_told(made, tmp_path: Path):
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    file = folder / RUN / "metrics.jsonl"
    first, *others = file.read_text().splitlines()
    resumed = '{"kind": "resume", "step": 0, "samples": 0, "ranks": 1, "device": "another"}'
    file.write_text("\n".join([first.replace('"kind"', '"device": "one", "kind"'), resumed, *others]) + "\n")
    assert "NOT equal: device is one for came, another for came" in summarise({folder: made.design}).head


def test_what_is_not_equal_and_changes_no_mathematics_is_in_the_head(made, tmp_path: Path):
    shutil.copytree(made.folder, tmp_path / "copy")
    file = tmp_path / "copy" / "came-lr_0.0004-seed_2" / "metrics.jsonl"
    file.write_text(file.read_text().replace('"ranks": 1', '"ranks": 4'))
    head = summarise({tmp_path / "copy": made.design}).head
    ranks = "NOT equal: ranks is 1 for adamw and came and lamb, 4 for came; that changes rounding, time and memory alone"
    assert ranks in head
    assert not [line for line in summarise({made.folder: made.design}).head if "NOT equal" in line]


def test_clipping_of_one_variant_alone_is_in_the_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = ("compare.optimizers=[adamw,adamw_clip]", "compare.seeds=1", "compare.lrs.adamw=[1e-3]", "compare.lrs.adamw_clip=[1e-3]")
    made = make_comparison(tmp_path, lambda *_: 2.0, *own, "compare.most_rates=1", monkeypatch=monkeypatch)
    head = summarise({made.folder: made.design}).head
    assert "NOT equal: train.grad_clip is 0 for adamw, 1 for adamw_clip" in head


# The command ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "what is to be compared is not said"),
        (["--table", "nowhere"], "nowhere holds no comparison (no comparison.yaml)"),
        (["run.seed=1", "--table", "nowhere"], "--table starts no runs; leave run.seed=1 out"),
        (["--format", "csv", "run.seed=1"], "--format goes with --table DIR"),
    ],
)
def test_mistakes_in_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_dry_run_says_what_is_to_come_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main([f"run.dir={tmp_path}", *SETTINGS, *THREE, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "9 runs to come: came 0.0002, 0.0004, 0.0008; adamw" in printed and "at most 9 runs more" in printed
    assert not list(tmp_path.iterdir())


def test_help_and_the_list_of_variants_import_nothing_heavy():
    code = "import sys; from pretrain.compare.__main__ import main; main(['--variants']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "came_bias_correction_trust_ratio" in done.stdout
    assert not {"torch", "transformers", "hydra", "numpy"} & set(done.stdout.splitlines()[-1].split())
