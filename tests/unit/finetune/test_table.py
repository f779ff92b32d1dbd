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
    "finetune.batch_size": 32,
    "finetune.max_seq_length": 128,
    "finetune.max_train_examples": None,
    "finetune.dropout": None,
    "schedule.kind": "linear",
    "finetune.from_scratch": False,
    "optimizer.name": "adamw",
    "optimizer.lr": 5e-5,
    "weights": "abc",
    "architecture": "bert",
    "tokenizer": "t",
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


def gains(text: str) -> list[str]:
    """The lines that say one."""
    return [line for line in text.splitlines() if "over random weights" in line]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("finetune.num_epochs", 1),
        ("finetune.max_steps", 100),
        ("finetune.batch_size", 512),
        ("finetune.max_seq_length", 64),
        ("finetune.max_train_examples", 1000),
        ("finetune.dropout", 0.0),
        ("schedule.kind", "constant"),
        ("data", "other"),
        ("tokenizer", "other"),
        ("architecture", "other"),
    ],
)
def test_a_control_of_other_settings_is_none_and_the_row_says_which(tmp_path: Path, show, setting: str, value: object) -> None:
    write_results(tmp_path / "pretrained", PRETRAINED)
    write_results(tmp_path / "control", RANDOM, **CONTROL | {setting: value})
    text = show(tmp_path)
    (line,) = (line for line in text.splitlines() if line.endswith(": no control here"))
    assert not gains(text) and setting.rpartition(".")[2].replace("kind", "schedule") in line
    pretrained, control = (line.split() for line in text.splitlines()[1:3])
    assert pretrained[3] == "pretrained" and control[3] == "random" and pretrained[4:-4] != control[4:-4]


def test_each_model_at_its_best_rate_is_held_against_the_best_control(tmp_path: Path, show) -> None:
    write_results(tmp_path / "pretrained", [0.80, 0.81, 0.82], **{"optimizer.lr": 1e-4})
    write_results(tmp_path / "twin", [0.20, 0.203, 0.206], **CONTROL | {"optimizer.lr": 1e-4})
    assert gains(show(tmp_path))[0].startswith("rte, runs/mini, adamw lr 0.0001: +60.70 accuracy over random weights")
    assert "rates tried" not in show(tmp_path)
    write_results(tmp_path / "tuned", [0.50, 0.503, 0.506], **CONTROL | {"optimizer.lr": 1e-3})
    (line,) = gains(show(tmp_path))
    assert line.startswith("rte, runs/mini, adamw lr 0.0001: +30.70 accuracy over random weights (rte, runs/mini, adamw lr 0.001), 95 %")
    assert line.endswith("(Welch, 3 and 3 seeds); rates tried: 1, of the control 2")
    write_results(tmp_path / "worse", [0.70, 0.70], **{"optimizer.lr": 1e-5})
    (line,) = gains(show(tmp_path))
    assert "lr 0.0001: +30.70" in line and "rates tried" not in line
    assert show(tmp_path).count(" pretrained ") == 2  # rows are shown of every rate
    came = {"optimizer.name": "came", "optimizer.beta3": 0.9999, "optimizer.lr": 1e-3}
    write_results(tmp_path / "came", [0.60, 0.60, 0.60], **CONTROL | came)
    (line,) = gains(show(tmp_path))
    assert "lr 0.0001: +21.00" in line and "(rte, runs/mini, came lr 0.001)" in line and line.endswith("rates tried: 2, of the control 3")
    write_results(tmp_path / "came_pretrained", [0.7, 0.7], **came)
    write_results(tmp_path / "later", [0.9, 0.9], weights="def")
    first, second, third = sorted(gains(show(tmp_path)))
    assert "adamw lr 0.0001, weights abc: +21.00" in first and "adamw lr 5e-05, weights def: +30.00" in second
    assert "came lr 0.001, weights abc: +10.00" in third


def test_a_rate_that_was_tried_with_fewer_seeds_is_not_the_best_but_is_told(tmp_path: Path, show) -> None:
    write_results(tmp_path / "lucky", [0.90], **{"optimizer.lr": 1e-3})
    write_results(tmp_path / "diverged", [0.95, None, None], **{"optimizer.lr": 1e-2})
    write_results(tmp_path / "settled", [0.80, 0.81, 0.82])
    write_results(tmp_path / "control", [0.50, 0.503, 0.506], **CONTROL)
    (line,) = gains(show(tmp_path))
    assert "adamw lr 5e-05: +30.70" in line and "; rates tried: 3, of the control 1" in line
    assert line.endswith("; passed over for too few seeds, though of a better mean: adamw lr 0.01, adamw lr 0.001")
    assert "among those with as many seeds as both sides have" in show(tmp_path)


def test_a_control_need_not_have_more_seeds_than_the_pretrained_model(tmp_path: Path, show) -> None:
    write_results(tmp_path / "pretrained", [0.61, 0.61, 0.61])
    write_results(tmp_path / "came", [0.60, 0.60, 0.60], **CONTROL | {"optimizer.name": "came"})
    write_results(tmp_path / "adamw", [0.50] * 5, **CONTROL)
    write_results(tmp_path / "lucky", [0.70], **CONTROL | {"optimizer.lr": 1e-3})
    (line,) = gains(show(tmp_path))
    assert "+1.00 accuracy" in line and "(rte, runs/mini, came lr 5e-05)" in line
    assert line.endswith("; of the control passed over for too few seeds, though of a better mean: adamw lr 0.001")


def test_labels_name_what_differs_in_their_task_and_nothing_else(tmp_path: Path, show) -> None:
    for batch_size, score in ((16, 0.6), (32, 0.7)):
        write_results(tmp_path / f"pretrained_{batch_size}", [score] * 2, **{"finetune.batch_size": batch_size})
        write_results(tmp_path / f"control_{batch_size}", [0.5] * 2, **CONTROL | {"finetune.batch_size": batch_size})
    write_results(tmp_path / "cola", [0.1], metric="matthews", task="cola", **{"finetune.batch_size": 8})
    text = show(tmp_path)
    assert [line.split(" over ")[0] for line in gains(text)] == [
        "rte, runs/mini, adamw lr 5e-05, batch_size 16: +10.00 accuracy",
        "rte, runs/mini, adamw lr 5e-05, batch_size 32: +20.00 accuracy",
    ]
    heads = [line.split() for line in text.splitlines() if line.startswith("task ")]
    assert ["batch_size" in head for head in sorted(heads, key=lambda head: "matthews" in head)] == [True, False]


def test_that_dropout_is_part_of_the_architecture_is_not_said_twice(tmp_path: Path, show) -> None:
    for dropout, architecture in ((0.0, "a"), (0.1, "b")):
        write_results(tmp_path / architecture, [0.6], **{"finetune.dropout": dropout, "architecture": architecture})
    assert "dropout" in show(tmp_path) and "architecture" not in show(tmp_path)
    write_results(tmp_path / "other", [0.6], **{"finetune.dropout": 0.1, "architecture": "c"})
    assert "architecture" in show(tmp_path)


def test_tasks_have_tables_of_their_own_and_markdown_is_markdown(tmp_path: Path, show) -> None:
    write_results(tmp_path / "a" / "rte", PRETRAINED)
    write_results(tmp_path / "a" / "cola", [0.1], metric="matthews", task="cola")
    text = show(tmp_path / "a", tmp_path / "a" / "rte", "--format", "markdown")
    assert text.count("| task |") == 2 and text.count("| rte |") == 1
    assert "| cola | runs/mini | adamw | pretrained | 5e-05 | 3 | 1 | 10.00 |" in text
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {9}
    write_results(tmp_path / "b", [0.1], **{"finetune.batch_size": 8, "finetune.max_steps": 7})
    write_results(tmp_path / "c", [0.2])
    text = show(tmp_path / "b", tmp_path / "c", "--format", "markdown")
    assert "| epochs | batch\\_size | seeds |" in text and "| 3, at most 7 steps | 8 | 1 |" in text


def test_seeds_that_diverged_and_scores_that_are_not_defined_are_left_out_and_told(tmp_path: Path, show) -> None:
    write_results(tmp_path / "some", [0.6, None, 0.7])
    write_results(tmp_path / "all", [None], **{"optimizer.lr": 1.0})
    write_results(tmp_path / "undefined", [0.4, float("nan"), 0.4], **{"optimizer.lr": 2.0})
    write_results(tmp_path / "control", [0.5], **CONTROL)
    text = show(tmp_path)
    assert "3 (1 diverged) 65.00 +- 7.07" in " ".join(text.split()) and "1 (1 diverged)" in text
    assert "40.00 +- 0.00 (1 undefined)" in text
    (line,) = gains(text)
    assert "+15.00 accuracy over random weights (rte, runs/mini, adamw lr 5e-05); with a single seed there is no interval" in line
    assert line.endswith("; without 1 diverged of 3 seeds; rates tried: 3, of the control 1")
    (tmp_path / "control" / "results.json").unlink()
    write_results(tmp_path / "other_control", [0.5, None, float("nan")], **CONTROL)
    assert "; the control without 1 diverged and 1 undefined of 3 seeds; rates" in show(tmp_path)


@pytest.mark.parametrize(("pretrained", "control", "whose"), [([None] * 2, [0.5], "it"), ([0.5], [None] * 2, "the control")])
def test_a_gain_that_cannot_be_told_is_named(tmp_path: Path, show, pretrained, control, whose: str) -> None:
    write_results(tmp_path / "pretrained", pretrained)
    write_results(tmp_path / "control", control, **CONTROL)
    assert f"adamw lr 5e-05: no gain is told, as no seed of {whose} has a score (2 diverged)\n" in show(tmp_path)


def test_it_is_told_where_a_constant_prediction_counts_as_0(tmp_path: Path, show) -> None:
    write_results(tmp_path / "stsb", [0.0, 0.0], metric="pearson", task="stsb")
    assert show(tmp_path).count("predictions are all the same the pearson score is 0") == 1
    write_results(tmp_path / "rte" / "rte", [0.5])
    assert "all the same" not in show(tmp_path / "rte")


def test_seeds_that_were_made_with_something_else_are_told(tmp_path: Path, show) -> None:
    path = write_results(tmp_path / "some", RANDOM) / "results.json"
    content = json.loads(path.read_text())
    for seed, version in (("0", "2.11"), ("1", "2.13"), ("2", "2.11")):
        content["seeds"][seed]["made_with"] = {"device": "a processor", "versions": {"torch": version}}
    path.write_text(json.dumps(content))
    lines = [line for line in show(tmp_path).splitlines() if line.startswith("NOT equal")]
    assert lines == ["NOT equal: in rte, runs/mini, adamw lr 5e-05, versions.torch is 2.11 for seed 0 and seed 2, 2.13 for seed 1"]


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
