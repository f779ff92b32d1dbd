"""`python -m pretrain.export`: the model of a checkpoint, from the run's folder alone, to the bit."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from came.checkpoint import load_masters, load_whole
from pretrain.config.compose import compose
from pretrain.export import main
from pretrain.sample import main as sample
from tests.made_runs import BERT, GPT2, TEXT, checkpoint_of, flip_a_bit, make_run, make_tokenizer, plant_a_pickle

FAMILIES = {"bert": BERT, "gpt2": GPT2}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {family: make_run(folder / family, *settings) for family, settings in FAMILIES.items()}


@pytest.fixture
def run(made: dict[str, Path], tmp_path: Path) -> Path:
    """One to be damaged."""
    return Path(shutil.copytree(made["bert"], tmp_path / "bert"))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([*map(str, arguments)])
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_reads_the_masters_to_the_bit(made: dict[str, Path], tmp_path: Path, command, family: str) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForPreTraining, AutoTokenizer

    output = tmp_path / "out" / "model"
    assert command(made[family], output) == (0, f"step 4 of {family} is in {output}\n", "")
    loader = AutoModelForCausalLM if family == "gpt2" else AutoModelForPreTraining
    model, report = loader.from_pretrained(output, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    found = {f"model.{name}": parameter.detach().flatten() for name, parameter in model.named_parameters()}
    wanted = load_masters(checkpoint_of(made[family]))
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert AutoTokenizer.from_pretrained(output).decode(AutoTokenizer.from_pretrained(output)("the moon")["input_ids"][-1:])


def test_one_plain_file_holds_all_of_it(made: dict[str, Path], tmp_path: Path, command) -> None:
    from transformers import BertForPreTraining

    output = tmp_path / "bert.pt"
    assert command(made["bert"], "--torch", output, "--step", 2)[0] == 0
    found = torch.load(output, weights_only=True)
    assert found["progress"]["step"] == 2 and found["config"]["model"]["name"] == "bert_tiny"
    wanted = load_whole(checkpoint_of(made["bert"], 2))
    seen = 0
    for name, weight in found["model"].items():
        assert torch.equal(weight.flatten(), wanted[f"model.{name}/master"]) and weight.dtype == torch.float32
        state = found["optimizer"][name]
        assert state["exp_avg"].shape == weight.shape
        assert all(torch.equal(value.flatten(), wanted[f"model.{name}/{kind}"].flatten()) for kind, value in state.items())
        seen += 1 + len(state)
    assert seen == len(wanted)

    assert command(made["bert"], tmp_path / "hf", "--step", 2)[0] == 0
    model = BertForPreTraining.from_pretrained(tmp_path / "hf")
    assert {name: value.shape for name, value in found["model"].items()} == {n: value.shape for n, value in model.named_parameters()}


def test_what_is_there_is_not_written_over(made: dict[str, Path], tmp_path: Path, command) -> None:
    (tmp_path / "kept").write_text("mine")
    for more in ((), ("--torch",)):
        code, output, errors = command(made["bert"], tmp_path / "kept", *more)
        assert (code, output) == (2, "") and errors.endswith("already exists; give another name, or delete it\n")
    assert (tmp_path / "kept").read_text() == "mine"


@pytest.mark.parametrize("more", [(), ("--torch",)], ids=["hugging face", "torch"])
def test_a_place_that_cannot_be_written_is_one_line(made: dict[str, Path], tmp_path: Path, command, more: tuple[str, ...]) -> None:
    (tmp_path / "file").touch()
    code, _, errors = command(made["bert"], tmp_path / "file" / "model", *more)
    assert code == 2 and re.fullmatch(r"error: .* cannot be written \(.*\); give another place\n", errors)


def test_a_damaged_newest_one_gives_way_to_the_one_before(run: Path, tmp_path: Path, command) -> None:
    flip_a_bit(checkpoint_of(run) / "__0_0.distcp")
    code, output, errors = command(run, tmp_path / "model")
    assert code == 0 and output.startswith("step 2 of bert")
    assert "step_00000004 is damaged (__0_0.distcp does not match its checksum); step_00000002 is used instead" in errors
    code, _, errors = command(run, tmp_path / "other", "--step", 4)
    assert code == 2 and re.fullmatch(r"error: .*step_00000004 is not a whole checkpoint .*; name another one\n", errors)
    flip_a_bit(checkpoint_of(run, 2) / ".metadata")
    code, _, errors = command(run, tmp_path / "other")
    assert code == 2 and re.fullmatch(r"error: no checkpoint in .* is whole \(step_00000004: .*; step_00000002: .*\); .*\n", errors)
    assert not (tmp_path / "other").exists()


def test_nothing_in_a_checkpoint_is_executed(run: Path, tmp_path: Path, command, capsys) -> None:
    plant_a_pickle(checkpoint_of(run), tmp_path / "trace")
    code, _, errors = command(checkpoint_of(run), tmp_path / "model")
    assert code == 2 and "nothing of it was executed" in errors
    assert sample([str(checkpoint_of(run)), "the [MASK]"]) == 2 and "nothing of it was executed" in capsys.readouterr().err
    assert not (tmp_path / "trace").exists()


def test_a_checkpoint_without_its_tokenizer_is_refused(run: Path, tmp_path: Path, command) -> None:
    shutil.copytree(checkpoint_of(run), tmp_path / "elsewhere" / "moved")
    code, _, errors = command(tmp_path / "elsewhere" / "moved", tmp_path / "model")
    assert code == 2 and "the tokenizer of the run, cannot be read; copy it there" in errors
    shutil.rmtree(run / "tokenizer")
    make_tokenizer(compose([*BERT]), run / "tokenizer", [*TEXT, "owls hoot at night " * 9])
    code, _, errors = command(run, tmp_path / "model")
    assert code == 2 and "is not the tokenizer that" in errors


def test_a_checkpoint_can_be_sampled_from(made: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for folder in (made["bert"], checkpoint_of(made["bert"]), checkpoint_of(made["bert"], 2)):
        assert sample([str(folder), "the [MASK] sees"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2]
