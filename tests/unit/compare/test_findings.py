"""What a comparison finds: differences that are there and none that are not, by statistics with known answers."""

import csv
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from pretrain.compare.composing import Comparison
from pretrain.compare.page import render
from pretrain.compare.plot import as_svg
from pretrain.compare.summary import Summary, summarise
from pretrain.compare.table import as_csv, as_text
from pretrain.report.significance import holm, paired_difference
from tests.made_comparison import GRIDS, OPTIMA, RUN, THREE, changed, make_comparison, row, world


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


APART = {"came": (-0.2, 0.1), "adamw": (0.0, 0.0), "lamb": (0.05, 0.1)}
"""From AdamW's loss: the mean, and how far the seeds lie from it, half of them to either side."""
ALONE = {name: 1 - 2 / math.pi * (x / (1 + x * x) + math.atan(x)) for name, x in (("came", 2.0), ("lamb", 0.5))}
"""The p of each by itself, 0.041 and 0.45: of Student's t = x sqrt(3) with 3 degrees of freedom, in closed form."""
ONE_RATE = ("compare.lrs.came=[1e-3]", "compare.lrs.adamw=[1e-3]", "compare.lrs.lamb=[1e-3]", "compare.most_rates=1")


def apart(variant: str, lr: float, seed: int) -> float | None:
    mean, deviation = APART[variant]
    return 2.0 + mean + deviation * (-1) ** seed


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return make_comparison(tmp_path_factory.mktemp("apart"), apart, *THREE, *ONE_RATE, monkeypatch=monkeypatch)


@pytest.mark.parametrize(("missing", "left"), [("lamb", "came"), ("came", "lamb")])
def test_p_counts_those_not_finished_and_says_so(ended: Comparison, missing: str, left: str, tmp_path: Path):
    shutil.copytree(ended.folder, tmp_path / "copy")
    shutil.rmtree(next((tmp_path / "copy").glob(f"{missing}-*-seed_3")))
    summary = summarise({tmp_path / "copy": ended.design})
    assert row(summary, left).p == pytest.approx(2 * ALONE[left], rel=1e-5) and row(summary, left).word == "no difference shown"
    assert row(summary, missing).word == "not finished" and row(summary, missing).p is None
    assert [note for note in summary.notes if note.startswith("NOT final: p")]


def test_p_is_final_when_all_have_ended(ended: Comparison):
    summary = summarise({ended.folder: ended.design})
    assert row(summary, "came").p == pytest.approx(2 * ALONE["came"], rel=1e-5)
    assert row(summary, "lamb").p == pytest.approx(ALONE["lamb"], rel=1e-5)
    assert not [note for note in summary.notes if note.startswith("NOT")]


def test_what_has_diverged_is_no_test_and_counts_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def without_lamb(variant: str, lr: float, seed: int) -> float | None:
        return None if variant == "lamb" else apart(variant, lr, seed)

    made = make_comparison(tmp_path, without_lamb, *THREE, *ONE_RATE, monkeypatch=monkeypatch)
    came = row(summarise({made.folder: made.design}), "came")
    assert came.p == pytest.approx(ALONE["came"], rel=1e-5) and came.word == "better"


def test_holms_p_only_fall_when_those_still_to_come_are_known():
    assert holm([0.01, 0.04, 0.03], 3) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.01, 0.03], 4) == pytest.approx([0.04, 0.09])
    rng = np.random.default_rng(0)
    for known in rng.integers(1, 6, 200):
        every = list(rng.uniform(0, 0.3, 6))
        assert all(np.array(holm(every, 6))[:known] <= holm(every[:known], 6))


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


def test_what_the_decay_is_multiplied_by_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = ("adamw", "came", "came_trust_ratio", "lamb", "adafactor", "plain")
    plain = "compare.variants.plain=[optimizer=adafactor,optimizer.scale_parameter=false]"
    settings = (f"compare.optimizers=[{','.join(names)}]", plain, "compare.seeds=1", "compare.most_rates=1")
    grids = (f"compare.lrs.{name}=[1e-3]" for name in names)
    made = make_comparison(tmp_path, lambda *_: 2.0, *settings, *grids, monkeypatch=monkeypatch)
    (note,) = [note for note in summarise({made.folder: made.design}).notes if note.startswith("weight decay")]
    assert dict(part.split(" ", 1) for part in note.partition(": ")[2].split(", ")) == {
        "adamw": "1e-05",
        "came": "1e-05",
        "came_trust_ratio": "1e-05 times the trust ratio",
        "lamb": "1e-05 times the trust ratio",
        "adafactor": "1e-05 times the parameter's RMS",
        "plain": "1e-05",
    }


def test_without_a_difference_the_test_cries_wolf_as_often_as_it_says():
    """Of 600 comparisons of two equal settings, about 5 in 100 have p below 0.05: 3 standard deviations of the count to either side."""
    rng = np.random.default_rng(0)
    found = [paired_difference(list(rng.normal(size=4)), list(rng.normal(size=4))).p < 0.05 for _ in range(600)]
    assert 0.023 < np.mean(found) < 0.077
