"""Fair by construction: what would make runs unequal is refused, and what may differ stands in the head of the table."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from pretrain.compare import design as designs
from pretrain.compare.__main__ import main
from pretrain.compare.composing import read_command
from pretrain.compare.summary import summarise
from pretrain.compare.variants import ADVICE, VARIANTS
from pretrain.config.consistency import mathematical_settings
from tests.made_comparison import GRIDS, RUN, SETTINGS, THREE, changed, make_comparison, world


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
