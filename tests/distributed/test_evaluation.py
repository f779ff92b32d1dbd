"""`python -m pretrain.evaluate` gives a BERT, on the validation text of its run, the scores that the run itself ended with."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.evaluate.__main__ import main
from pretrain.metrics import last, read_metrics
from tests.distributed.test_layout_invariance import write_corpus
from tests.forked_runs import SMALL, ForkedRuns

RUNS = {
    # on a part of the text that was held out
    "pairs": ("objective=mlm_nsp", "train.eval_samples=40", "data.validation_fraction=0.2", "run.export=true"),
    # on all of a text of its own, with masks of its own
    "full": ("objective=mlm", "train.eval_samples=100000", "data.valid_paths=[valid.txt]", "objective.mask_probability=0.25"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("evaluation")
    write_corpus(found / "corpus.txt")
    (found / "valid.txt").write_text("\n\n".join(f"the cat hears {number} birds.\nold songs follow a river." for number in range(50)))
    for name, settings in RUNS.items():
        ended = ForkedRuns(found).run(*SMALL, *settings, "train.num_steps=2", f"run.name={name}", ranks=1)
        assert ended.codes == [0], ended.said
    return found


@pytest.fixture
def evaluated(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, float]]:
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> dict[str, float]:
        code = main([*arguments, "--format", "json"])
        output, errors = capsys.readouterr()
        assert code == 0, errors
        return json.loads(output)

    return run


def final_scores(folder: Path, run: str) -> dict[str, float]:
    line = last(read_metrics(folder / "runs" / run / "metrics.jsonl"), "eval")
    assert line is not None
    return {name: value for name, value in line.items() if name in ("loss", "nsp_accuracy") or name.startswith(("mlm", "mask"))}


@pytest.mark.parametrize(
    ("run", "model", "text"),
    [
        ("pairs", "runs/pairs", ()),
        ("pairs", "runs/pairs/checkpoints/step_00000002", ()),
        ("full", "runs/full", ()),
        ("full", "runs/full", ("data.paths=[valid.txt]", "data.cache_dir=cache")),
    ],
)
def test_scores_are_the_last_of_the_run(folder: Path, evaluated, run: str, model: str, text: tuple[str, ...]) -> None:
    wanted = final_scores(folder, run)
    assert ("nsp_accuracy" in wanted) == (run == "pairs") and {"loss", "mlm_loss", "mlm_accuracy", "mask_token_loss"} <= wanted.keys()
    found = evaluated(model, *text)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-5)
    assert found["samples"] == 40 if run == "pairs" else found["samples"] > 8


def test_an_own_text_that_has_changed_is_refused(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = Path("valid.txt").read_text()
    Path("valid.txt").write_text(before + "\n\none more document.")
    try:
        assert main(["runs/full"]) == 2
    finally:
        Path("valid.txt").write_text(before)
    assert "the text that the run was trained on has changed since; name a text" in capsys.readouterr().err
