"""Fine-tunings of tiny models on tasks that are made up: what is learnt, what is repeated to the bit, and what begins where."""

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from filelock import FileLock
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score

from pretrain.config.finetuning import read_finetuning
from pretrain.errors import UserError
from pretrain.export import main as export
from pretrain.finetune import classification, command, glue_data, model, results, squad_data, training
from pretrain.finetune.__main__ import main
from pretrain.finetune.batches import epoch_batches, padded
from pretrain.finetune.tasks import GLUE_TASKS
from tests.made_runs import BERT, checkpoint_of, make_run
from tests.unit.finetune.made_tasks import write_squad, write_task


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints and dropout, but without an export."""
    return make_run(tmp_path_factory.mktemp("runs") / "bert", *BERT, "model.dropout=0.1", "model.initializer_range=0.1", steps=(2,))


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    folder = run.parent / "exported"
    assert export([str(run), str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("glue")
    for task in ("sst2", "mrpc", "stsb", "mnli"):
        write_task(folder / GLUE_TASKS[task].folder, task, train=240, dev=40)
    return folder


@pytest.fixture
def finetune(tmp_path: Path, glue: Path) -> Callable[..., dict[str, Any]]:
    """`finetune(run, "task=sst2", ...)`: the content of results.json; the folder is `tmp_path / "out"` unless another is given."""

    def start(folder: Path, *settings: str, out: str = "out", code: int = 0) -> dict[str, Any]:
        output = tmp_path / out
        data = () if any("data_dir" in setting for setting in settings) else (f"finetune.data_dir={glue}",)
        assert main([str(folder), *data, f"finetune.output_dir={output}", "finetune.device=cpu", *settings]) == code
        return json.loads((output / "results.json").read_text())

    return start


SHORT = ("task=sst2", "finetune.max_steps=6", "finetune.batch_size=8", "optimizer.lr=1e-3")
LEARNT = ("finetune.num_epochs=5", "finetune.batch_size=16")


def scores(content: dict[str, Any], seed: int = 0) -> dict[str, float]:
    return content["seeds"][str(seed)]["scores"]


def predictions(folder: Path, seed: int = 0) -> list[dict[str, str]]:
    with (folder / f"predictions_seed_{seed}.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


# Learning -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [("adamw", "5e-3"), ("came", "1e-3")], ids=lambda pair: pair[0])
def test_a_separable_task_is_learnt(run: Path, finetune, optimizer: tuple[str, str]) -> None:
    name, lr = optimizer
    content = finetune(run, "task=sst2", *LEARNT, f"optimizer={name}", f"optimizer.lr={lr}")
    assert scores(content)["accuracy"] > 0.95


def test_pairs_are_learnt_and_the_scores_follow_from_the_predictions(run: Path, finetune, tmp_path: Path) -> None:
    content = finetune(run, "task=mrpc", *LEARNT, "optimizer.lr=5e-3")
    rows = predictions(tmp_path / "out")
    labels, found = ([int(row[name]) for row in rows] for name in ("label", "prediction"))
    assert len(rows) == 40 and scores(content)["f1"] > 0.9
    assert scores(content) == pytest.approx({"f1": f1_score(labels, found), "accuracy": accuracy_score(labels, found)})


def test_scores_are_learnt_by_regression(run: Path, finetune, tmp_path: Path) -> None:
    content = finetune(run, "task=stsb", *LEARNT, "finetune.num_epochs=7", "optimizer.lr=5e-3")
    rows = predictions(tmp_path / "out")
    labels, found = ([float(row[name]) for row in rows] for name in ("label", "prediction"))
    assert scores(content)["pearson"] > 0.9
    wanted = {"pearson": stats.pearsonr(labels, found).statistic, "spearman": stats.spearmanr(labels, found).statistic}
    assert scores(content) == pytest.approx(wanted)


def test_three_classes_have_two_validation_sets(run: Path, finetune, tmp_path: Path) -> None:
    content = finetune(run, "task=mnli", "finetune.max_steps=2")
    rows = predictions(tmp_path / "out")
    for split in ("_matched", "_mismatched"):
        some = [row for row in rows if row["split"] == f"dev{split}"]
        assert len(some) == 40 and {row["label"] for row in some} == {"entailment", "neutral"}
        assert scores(content)[f"accuracy{split}"] == pytest.approx(np.mean([row["label"] == row["prediction"] for row in some]))


def test_an_answer_is_learnt_over_several_windows(run: Path, finetune, tmp_path: Path) -> None:
    folder = write_squad(tmp_path / "squad", train=60, dev=10)
    settings = ("finetune.num_epochs=6", "finetune.batch_size=16", "optimizer.lr=5e-3")
    content = finetune(run, "task=squad", f"finetune.data_dir={folder}", *settings)
    assert content["counts"]["dev_windows"] > 2 * content["counts"]["dev"] == 20
    assert scores(content)["exact_match"] > 0.8
    answers = json.loads((tmp_path / "out" / "predictions_seed_0.json").read_text())
    assert np.mean([answer == "moon" for answer in answers.values()]) == scores(content)["exact_match"]


@pytest.mark.parametrize("task", ["stsb", "sst2", "squad"])
def test_training_is_the_plain_loop_of_textbooks(run: Path, tmp_path: Path, task: str) -> None:
    """transformers' own losses, torch's AdamW, the rates written out. A large eps, as some gradients of SQuAD's are all rounding."""
    folder = write_squad(tmp_path / task, train=6) if task == "squad" else write_task(tmp_path / task, task, train=20)
    given = f"task={task} finetune.data_dir={folder} finetune.dropout=0 finetune.grad_clip=0.1 finetune.batch_size=8 optimizer.lr=1e-3"
    config = read_finetuning(
        [*given.split(), "finetune.num_epochs=2", "finetune.max_steps=5", "schedule.warmup_ratio=0.4", "optimizer.eps=1e-4"]
    )
    start = model.find(str(run), command.num_labels(task), 0.0, False)
    config = dataclasses.replace(config, finetune=command.with_lengths(task, config.finetune, start))
    data = squad_data.read(str(folder)) if task == "squad" else glue_data.read(GLUE_TASKS[task], str(folder))
    problem = command.build_problem(config, data, start)
    ours, theirs = start.build(0), start.build(0)
    outcome = training.train(ours, problem, config, 0, start.tokenizer.pad_token_id, lambda line: None)

    matrices, vectors = ([p for p in theirs.parameters() if (p.dim() > 1) is matrix] for matrix in (True, False))
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}], lr=1e-3, eps=1e-4)
    lengths = [len(row.input_ids) for row in problem.rows]
    batches = [*epoch_batches(lengths, 8, 0, 0), *epoch_batches(lengths, 8, 0, 1)][:5]
    losses = []
    for places, share in zip(batches, TWO_UPDATES_UP_AND_DOWN_TO_ZERO, strict=True):
        rows = [problem.rows[place] for place in places]
        targets = torch.tensor([row.target for row in rows])
        named = {"start_positions": targets[:, 0], "end_positions": targets[:, 1]} if task == "squad" else {"labels": targets}
        loss = theirs(**padded(rows, start.tokenizer.pad_token_id), **named).loss
        optimizer.zero_grad()
        loss.backward()
        assert torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.1) > 0.1
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 1e-3 * share
        optimizer.step()
        losses.append(loss.item())
    assert outcome.epochs[0]["loss"] == pytest.approx(np.mean(losses[: outcome.epochs[0]["step"]]), rel=1e-5)
    for name, tensor in ours.state_dict().items():
        assert torch.allclose(tensor, theirs.state_dict()[name], atol=2e-5), name


TWO_UPDATES_UP_AND_DOWN_TO_ZERO = (1 / 2, 1, 1, 2 / 3, 1 / 3)

# Repeatable -----------------------------------------------------------------------------------------------------------------------


def test_two_fine_tunings_are_equal_to_the_bit_and_other_seeds_are_others(run: Path, finetune, tmp_path: Path) -> None:
    settings = (*SHORT, "finetune.seeds=[0,1]", "task=stsb")
    first, second = (finetune(run, *settings, out=out) for out in ("first", "second"))
    for seed in (0, 1):
        assert first["seeds"][str(seed)]["epochs"] == second["seeds"][str(seed)]["epochs"]
        assert predictions(tmp_path / "first", seed) == predictions(tmp_path / "second", seed)
    assert predictions(tmp_path / "first", 0) != predictions(tmp_path / "first", 1)


def test_the_order_holds_each_example_once_and_follows_from_the_seed() -> None:
    lengths = np.random.default_rng(0).integers(3, 128, 4001).tolist()
    orders = [epoch_batches(lengths, 32, seed, epoch) for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert orders[0] == orders[1] and orders[0] != orders[2] != orders[3] != orders[0]
    for batches in orders:
        assert sorted(place for batch in batches for place in batch) == list(range(4001))
        padded_tokens = sum(len(batch) * max(lengths[place] for place in batch) for batch in batches)
        assert padded_tokens < 1.1 * sum(lengths)
        longest = [max(lengths[place] for place in batch) for batch in batches]
        assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.35  # not from short to long


def test_padding_changes_neither_loss_nor_predictions(run: Path, glue: Path) -> None:
    start = model.find(str(run), 2, None, False)
    train, evaluated = glue_data.read(GLUE_TASKS["sst2"], str(glue))
    problem = classification.Classification(GLUE_TASKS["sst2"], train, evaluated, start.tokenizer, 32)
    built, rows = start.build(0).eval(), problem.rows[:9]
    assert len({len(row.input_ids) for row in rows}) > 2
    alone = torch.stack([problem.loss(built, padded([row], start.tokenizer.pad_token_id), [row]) for row in rows])
    together = problem.loss(built, padded(rows, start.tokenizer.pad_token_id), rows)
    assert together.item() == pytest.approx(alone.mean().item(), abs=1e-6)
    files = [problem.evaluate(built, "cpu", size).predictions for size in (1, 7, 100)]
    assert files[0] == files[1] == files[2]


# Where it begins ------------------------------------------------------------------------------------------------------------------


def test_a_run_a_checkpoint_and_an_export_begin_alike(run: Path, exported: Path) -> None:
    models = [model.find(str(path), 2, None, False).build(3).state_dict() for path in (run, checkpoint_of(run, 2), exported)]
    for name, tensor in models[0].items():
        assert torch.equal(tensor, models[1][name]) and torch.equal(tensor, models[2][name]), name
    starts = [model.find(str(path), 2, None, False) for path in (run, exported)]
    assert starts[0].described() == starts[1].described() and starts[0].tokenization() == starts[1].tokenization()
    questions = [model.find(str(path), None, None, False).build(3).state_dict() for path in (run, exported)]
    assert all(torch.equal(tensor, questions[1][name]) for name, tensor in questions[0].items())


def test_the_head_alone_is_new_and_the_control_is_all_new(run: Path, tmp_path: Path) -> None:
    start, control = (model.find(str(run), 3, None, from_scratch) for from_scratch in (False, True))
    lacking = [name for name in start.shapes() if name not in start.weights]
    assert lacking == ["classifier.weight", "classifier.bias"] and not control.weights
    assert start.shapes() == control.shapes() and start.shapes()["classifier.weight"] == [3, 32]
    first, second = start.build(0).state_dict(), control.build(0).state_dict()
    assert torch.equal(first["classifier.weight"], second["classifier.weight"])  # the same seed
    assert not torch.equal(start.build(1).state_dict()["classifier.weight"], first["classifier.weight"])
    assert torch.equal(start.build(1).bert.pooler.dense.weight, first["bert.pooler.dense.weight"])
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    assert not torch.equal(first[name], second[name]) and second[name].std().item() == pytest.approx(0.1, rel=0.1)
    masked = make_run(tmp_path / "masked", *BERT, "objective=mlm", steps=(2,))
    start = model.find(str(masked), 3, 0.25, False)
    assert [name for name in start.shapes() if name not in start.weights][:2] == ["bert.pooler.dense.weight", "bert.pooler.dense.bias"]
    assert {module.p for module in start.build(0).modules() if isinstance(module, torch.nn.Dropout)} == {0.25}


def test_sequences_are_as_long_as_the_run_has_trained(run: Path, exported: Path, finetune, capsys: pytest.CaptureFixture[str]) -> None:
    settings = read_finetuning(["task=rte"]).finetune
    starts = {path: model.find(str(path), 2, None, False) for path in (run, checkpoint_of(run, 2), exported)}
    assert [command.with_lengths("rte", settings, start).max_seq_length for start in starts.values()] == [16, 16, 32]
    finetune(run, *SHORT, "finetune.max_steps=1")
    assert "not trained" not in capsys.readouterr().out
    finetune(run, *SHORT, "finetune.max_steps=1", "finetune.max_seq_length=17", out="longer")
    assert "note  positions from 16 on were not trained by the run\n" in capsys.readouterr().out


def test_what_decides_beside_the_weights_is_told_apart(run: Path) -> None:
    start = model.find(str(run), 2, None, False)
    before, tokens = start.described(), start.tokenization()
    start.tokenizer(["a", "longer one"], truncation=True, max_length=4, padding=True)
    assert start.tokenization() == tokens
    for name, value in {"num_attention_heads": 4, "hidden_dropout_prob": 0.5, "initializer_range": 0.01}.items():
        other = model.find(str(run), 2, None, False)
        setattr(other.config, name, value)
        assert other.described()["shapes"] == before["shapes"] and other.described() != before, name


def test_every_dropout_of_another_librarys_encoder_is_set() -> None:
    for config in (transformers.AlbertConfig(), transformers.DistilBertConfig(), transformers.ModernBertConfig()):
        model._set_dropout(config, 0.25)
        rates = {name: rate for name, rate in config.to_dict().items() if "dropout" in name and name != "layerdrop"}
        assert rates and set(rates.values()) <= {0.25, None}, rates
    with torch.device("meta"):
        albert = transformers.AlbertConfig(hidden_size=64, num_attention_heads=4, intermediate_size=64)
        model._set_dropout(albert, 0.25)
        built = transformers.AlbertForSequenceClassification(albert)
    assert {module.p for module in built.modules() if isinstance(module, torch.nn.Dropout)} == {0.25}


# Results --------------------------------------------------------------------------------------------------------------------------


def test_a_seed_that_is_done_is_not_repeated(run: Path, finetune, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = finetune(run, *SHORT, "finetune.seeds=[0,1,2]", out="whole")
    began = []
    train = training.train

    def counted(built, problem, config, seed, *others):
        began.append(seed)
        if len(began) == 2:
            raise KeyboardInterrupt
        return train(built, problem, config, seed, *others)

    monkeypatch.setattr("pretrain.finetune.command.train", counted)
    finetune(run, *SHORT, "finetune.seeds=[0,1,2]", code=130)
    content = finetune(run, *SHORT, "finetune.seeds=[2,1,0]", "finetune.eval_batch_size=3")
    assert began == [0, 1, 2, 1]
    assert list(content["seeds"]) == ["0", "1", "2"]
    for seed, record in content["seeds"].items():
        assert record["epochs"] == whole["seeds"][seed]["epochs"] and predictions(tmp_path / "out", int(seed))
    finetune(run, *SHORT, "finetune.save=true", "finetune.seeds=[1]")  # its model was not kept
    assert began[4:] == [1]
    assert not list((tmp_path / "out").glob("*.tmp"))
    saved = model.find(str(tmp_path / "out" / "model_seed_1"), 2, None, False)
    assert not [name for name in saved.shapes() if name not in saved.weights]


def test_two_commands_with_other_seeds_share_a_folder(run: Path, finetune, monkeypatch: pytest.MonkeyPatch) -> None:
    train = training.train

    def beside_another(*arguments):
        """While seed 0 trains, another command trains seed 1 from beginning to end."""
        monkeypatch.setattr("pretrain.finetune.command.train", train)
        finetune(run, *SHORT, "finetune.seeds=[1]")
        return train(*arguments)

    monkeypatch.setattr("pretrain.finetune.command.train", beside_another)
    found = finetune(run, *SHORT, "finetune.seeds=[0]")
    assert list(found["seeds"]) == ["0", "1"] and scores(found, 0) and scores(found, 1)


def test_a_folder_that_somebody_keeps_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_LOCK_SECONDS", 0.01)
    found = results.Results(tmp_path, {}, {})
    with FileLock(tmp_path / ".lock"), pytest.raises(UserError, match="is held by another command; where there is none, delete .*/.lock"):
        found.add(0, {}, None, "")
    assert not (tmp_path / "results.json").exists()


def test_results_of_something_else_are_refused(run: Path, finetune, glue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finetune(run, *SHORT)
    before = (tmp_path / "out" / "results.json").read_text()
    for other, named in {
        "optimizer.lr=2e-3": "optimizer.lr: 0.001 -> 0.002",
        "finetune.from_scratch=true": "finetune.from_scratch: False -> True",
        "task=mrpc": "task: sst2 -> mrpc",
        "finetune.max_train_examples=100": "finetune.max_train_examples: None -> 100",
    }.items():
        assert (
            main([str(run), f"finetune.data_dir={glue}", f"finetune.output_dir={tmp_path / 'out'}", "finetune.device=cpu", *SHORT, other])
            == 2
        )
        errors = capsys.readouterr().err
        assert errors.startswith("error: ") and errors.count("\n") == 1 and named in errors and "give another finetune.output_dir" in errors
    assert (tmp_path / "out" / "results.json").read_text() == before


def test_a_loss_that_is_not_finite_ends_the_seed(run: Path, finetune, monkeypatch: pytest.MonkeyPatch) -> None:
    content = finetune(run, *SHORT, "optimizer.lr=1e30", "finetune.seeds=[0,1]", code=1)
    assert [record["diverged"].startswith("at update 2 of 6") for record in content["seeds"].values()] == [True, True]
    assert "scores" not in content["seeds"]["0"]
    monkeypatch.setattr("pretrain.finetune.command.train", None)  # it is known how they end: nothing is trained again
    again = finetune(run, *SHORT, "optimizer.lr=1e30", "finetune.seeds=[0,1]", "finetune.save=true", code=1)
    assert again["seeds"] == content["seeds"]


def test_training_keeps_to_its_settings(run: Path, finetune) -> None:
    content = finetune(run, "task=sst2", "finetune.num_epochs=2", "finetune.batch_size=32", "finetune.max_train_examples=70")
    assert content["counts"]["train"] == 70 and [(one["epoch"], one["step"]) for one in content["seeds"]["0"]["epochs"]] == [(1, 3), (2, 6)]
    content = finetune(run, "task=sst2", "finetune.batch_size=120", "finetune.max_steps=3", out="steps")
    assert [(one["epoch"], one["step"]) for one in content["seeds"]["0"]["epochs"]] == [(1, 2), (2, 3)]
    assert scores(content) == content["seeds"]["0"]["epochs"][-1]["scores"]


def test_results_lie_beside_the_run(run: Path, exported: Path, glue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = (f"finetune.data_dir={glue}", "task=sst2", "finetune.max_steps=1", "finetune.from_scratch=true")
    for given, folder in {
        run: run / "finetune" / "sst2-from_scratch-adamw-lr_5e-05",
        checkpoint_of(run, 2): run / "finetune" / "step_00000002-sst2-from_scratch-adamw-lr_5e-05",
        exported: tmp_path / "finetune" / "exported" / "sst2-from_scratch-adamw-lr_5e-05",
    }.items():
        assert main([str(given), *settings]) == 0
        assert (folder / "results.json").exists()
