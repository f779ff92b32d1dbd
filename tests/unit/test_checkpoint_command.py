"""`python -m pretrain.checkpoint`: what it says of whole and of damaged checkpoints."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.checkpoint.__main__ import main
from pretrain.checkpoint.folder import CheckpointFolder
from tests.made_runs import BERT, checkpoint_of, flip_a_bit, make_run, plant_a_pickle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "bert", *BERT, "checkpoint.keep_every=2", "optimizer.lr=1e-5", steps=(1, 2, 4))


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """One to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "bert"))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def command(*arguments: object) -> tuple[int, str, str]:
        code = main([*map(str, arguments)])
        return code, *capsys.readouterr()

    return command


def test_list_tells_what_there_is(run: Path, say) -> None:
    checkpoint_of(run, 1).joinpath(".metadata").unlink()
    code, output, errors = say("list", run)
    _, damaged, older, newest = output.splitlines()
    assert (code, errors) == (0, "")
    assert re.fullmatch(r"step_00000001 +damaged: \.metadata is missing", damaged)
    assert re.fullmatch(r"step_00000002 +2 +1 +\d+\.\d\d [KM]iB  \d{4}-\d\d-\d\d \d\d:\d\d  kept for good", older)
    assert newest.endswith("latest, kept for good")


def test_list_names_what_the_run_has_set_aside(run: Path, say) -> None:
    CheckpointFolder(run / "checkpoints").set_aside(checkpoint_of(run, 2))
    assert "step_00000002.damaged found damaged by the run and set aside" in say("list", run)[1]


def test_verify_finds_every_file_that_was_changed(run: Path, say) -> None:
    code, output, errors = say("verify", run)
    assert (code, errors) == (0, "") and [line.split()[1] for line in output.splitlines()] == ["whole,"] * 3
    flip_a_bit(checkpoint_of(run, 2) / "__0_0.distcp")
    flip_a_bit(checkpoint_of(run, 4) / "manifest.json")
    code, output, errors = say("verify", run)
    first, second, third = output.splitlines()
    assert code == 2 and first.startswith("step_00000001  whole")
    assert second == "step_00000002  damaged: __0_0.distcp does not match its checksum"
    assert third.startswith("step_00000004  damaged: manifest.json ")
    assert re.fullmatch(r"error: 2 of 3 checkpoints in .* are damaged \(step_00000002, step_00000004\); delete them\n", errors)


def test_verify_looks_at_one(run: Path, say) -> None:
    flip_a_bit(checkpoint_of(run, 4) / "__0_0.distcp")
    assert say("verify", run, "--step", 2)[0] == say("verify", checkpoint_of(run, 2))[0] == 0
    assert say("verify", run, "--step", 4)[0] == say("verify", checkpoint_of(run, 4))[0] == 2


@pytest.mark.parametrize("action", ["verify", "show"])
def test_nothing_in_a_checkpoint_is_executed(run: Path, tmp_path: Path, say, action: str) -> None:
    plant_a_pickle(checkpoint_of(run), tmp_path / "trace")
    code, output, errors = say(action, run, "--step", 4)
    assert code == 2 and re.fullmatch(r"error: [^\n]+\n", errors) and "nothing of it was executed" in output + errors
    assert not (tmp_path / "trace").exists()


def test_show_tells_what_one_holds(made: Path, say) -> None:
    code, output, errors = say("show", made)
    rows = dict(line.strip().split("  ", 1) for line in output.splitlines())
    assert (code, errors) == (0, "")
    assert rows["progress"] == "step 4, 1 skipped, 1,280 samples, loss scale 1" and rows["saved at"] == "1 rank, ZeRO stage 2"
    assert rows["git"] == f"here {'f' * 40}, with changes" and rows["wandb id"] == "abc123"
    assert rows["model"] == "bert_tiny, mlm_nsp" and rows["optimizer"] == "came, peak lr 1e-05, schedule constant"
    parameters = re.fullmatch(r"(\d+) tensors, ([\d,]+) parameters, (.*)", rows["master"])
    momentum = re.fullmatch(r"(\d+) tensors, ([\d,]+) values, (.*)", rows["exp_avg"])
    assert parameters and momentum and parameters.groups() == momentum.groups()
    assert "step 2," in say("show", checkpoint_of(made, 2))[1] and "step 1," in say("show", made, "--step", 1)[1]


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        (("list", "nowhere"), "there is no folder nowhere; give a run's folder"),
        (("list", "."), "holds neither a run nor a checkpoint; give a run's folder"),
        (("show", "{run}", "--step", "3"), "has no checkpoint of step 3; give --step one of 1, 2, 4"),
        (("show", "{run}/checkpoints/step_00000002", "--step", "2"), "is one checkpoint; leave it out"),
        (("list", "{run}", "--step", "2"), "--step is for verify and show; leave it out"),
        (("mend", "{run}"), "see python -m pretrain.checkpoint --help"),
    ],
)
def test_a_mistake_is_one_line_with_the_mend(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say, arguments: tuple[str, ...], mend: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output, errors = say(*(argument.format(run=made) for argument in arguments))
    assert (code, output) == (2, "") and re.fullmatch(r"error: [^\n]+\n", errors) and mend in errors


@pytest.mark.parametrize(
    "module", ["pretrain.checkpoint.__main__", "pretrain.export", "pretrain.plan.__main__", "pretrain.sync", "pretrain.workspace"]
)
def test_help_imports_nothing_heavy(module: str) -> None:
    code = f"import sys; from {module} import main\ntry: main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "omegaconf", "numpy", "wandb"} & set(done.stdout.splitlines()[-1].split())
