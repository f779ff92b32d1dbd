"""Results beside each other: means, spreads, and differences to the control."""

import json
import statistics
from pathlib import Path

import pytest
from scipy import stats

from pretrain.finetune.__main__ import main

BASE = {
    "task": "rte",
    "finetune.num_epochs": 3,
    "finetune.max_steps": None,
    "finetune.from_scratch": False,
    "optimizer.name": "adamw",
    "optimizer.lr": 5e-5,
    "weights": "abc",
    "architecture": "bert",
    "vocabulary": "v",
    "data": "d",
}
CONTROL = {"finetune.from_scratch": True, "weights": "random"}
PRETRAINED, RANDOM = [0.65, 0.60, 0.66, 0.63], [0.53, 0.52, 0.55]


def write_results(folder: Path, scores: list[float | None], metric: str = "accuracy", **origin: object) -> Path:
    """None: the seed diverged; NaN: the score is not defined."""
    seeds = {
        str(seed): {"scores": {metric: None if score != score else score}} if score is not None else {"diverged": "at update 2"}
        for seed, score in enumerate(scores)
    }
    folder.mkdir(parents=True)
    content = {"format_version": 1, "model": "runs/mini", "made_from": BASE | origin, "seeds": seeds}
    (folder / "results.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> str:
        assert main(["--table", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    return run


def test_means_spreads_and_the_difference_to_the_control(tmp_path: Path, show) -> None:
    write_results(tmp_path / "random", RANDOM, **CONTROL)
    write_results(tmp_path / "pretrained", PRETRAINED)
    text = show(tmp_path)
    lines = text.splitlines()
    assert lines[0].split() == ["task", "model", "optimizer", "start", "lr", "epochs", "seeds", "accuracy"]
    mean, spread = 100 * statistics.fmean(PRETRAINED), 100 * statistics.stdev(PRETRAINED)
    assert lines[1].split()[3:] == ["pretrained", "5e-05", "3", "4", f"{mean:.2f}", "+-", f"{spread:.2f}"]
    assert lines[2].split()[3] == "random"
    interval = stats.ttest_ind(PRETRAINED, RANDOM, equal_var=False).confidence_interval(0.95)
    gain = mean - 100 * statistics.fmean(RANDOM)
    assert f"{gain:+.2f} accuracy over random weights" in text
    assert f"95 % interval {100 * interval.low:+.2f} to {100 * interval.high:+.2f} (Welch, 4 and 3 seeds)" in text
    assert "no epoch is chosen by them" in text


def test_the_control_is_the_one_of_the_same_settings_or_else_every_one(tmp_path: Path, show) -> None:
    write_results(tmp_path / "pretrained", PRETRAINED)
    write_results(tmp_path / "other_data", RANDOM, **CONTROL, data="other")
    assert "over random weights" not in show(tmp_path)
    write_results(tmp_path / "other_lr", RANDOM, **CONTROL | {"optimizer.lr": 1e-3})
    assert "over random weights (rte, runs/mini, adamw lr 0.001)" in show(tmp_path)
    write_results(tmp_path / "same_lr", RANDOM, **CONTROL)
    text = show(tmp_path)
    assert text.count("over random weights") == 1 and "over random weights (rte, runs/mini, adamw lr 5e-05)" in text


def test_tasks_have_tables_of_their_own_and_markdown_is_markdown(tmp_path: Path, show) -> None:
    write_results(tmp_path / "a" / "rte", PRETRAINED)
    write_results(tmp_path / "a" / "cola", [0.1], metric="matthews", task="cola")
    text = show(tmp_path / "a", tmp_path / "a" / "rte", "--format", "markdown")
    assert text.count("| task |") == 2 and text.count("| rte |") == 1
    assert "| cola | runs/mini | adamw | pretrained | 5e-05 | 3 | 1 | 10.00 |" in text
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {9}


def test_seeds_that_diverged_and_scores_that_are_not_defined_are_left_out_and_told(tmp_path: Path, show) -> None:
    write_results(tmp_path / "some", [0.6, None, 0.7])
    write_results(tmp_path / "all", [None], **{"optimizer.lr": 1.0})
    write_results(tmp_path / "undefined", [0.4, float("nan"), 0.4], **{"optimizer.lr": 2.0})
    write_results(tmp_path / "control", [0.5], **CONTROL)
    text = show(tmp_path)
    assert "3 (1 diverged) 65.00 +- 7.07" in " ".join(text.split()) and "1 (1 diverged)" in text
    assert "40.00 +- 0.00 (1 undefined)" in text
    assert "+15.00 accuracy over random weights (rte, runs/mini, adamw lr 5e-05); with a single seed there is no interval" in text


def test_what_is_no_results_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--table", str(tmp_path)]) == 2
    assert "there is no results.json in" in capsys.readouterr().err
    for content, complaint in {
        "{": "cannot be read as results",
        "[]": "cannot be read",
        '{"format_version": 9}': "not of this version's format",
    }.items():
        (tmp_path / "results.json").write_text(content)
        assert main(["--table", str(tmp_path)]) == 2
        errors = capsys.readouterr().err
        assert errors.count("\n") == 1 and complaint in errors
