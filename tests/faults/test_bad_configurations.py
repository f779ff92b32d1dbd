"""Generated mistakes, in settings, YAML files and arguments: each is one `error:` line that names what is wrong, and exit code 2."""

import re
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

import pretrain.launch
from tests.faults.mistakes import Mistake, draw

MAINS = {"pretrain": "pretrain.__main__", "pretrain.prepare": "pretrain.prepare", "pretrain.sample": "pretrain.sample"}
SEED = 20261126


def check(mistake: Mistake, code: int, output: str, errors: str) -> None:
    assert (code, output) == (2, ""), errors
    # A preparation may have said before how far it came.
    assert re.fullmatch(r"((?!error: )[^\n]+\n)*error: [^\n]+\n", errors) and "Traceback" not in errors, errors
    line = errors.splitlines()[-1]
    assert any(name in line for name in mistake.names), line


def run_here(mistake: Mistake, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    for name in ("_train", "run_ranks"):
        monkeypatch.setattr(pretrain.launch, name, lambda *arguments: pytest.fail("it would have been trained"))
    mistake.write_files(folder)
    code = import_module(MAINS[mistake.command]).main(list(mistake.arguments))
    check(mistake, code, *capfd.readouterr())


@pytest.mark.parametrize("mistake", draw(45, seed=SEED), ids=str)
def test_a_mistake_is_one_line_that_names_it(
    mistake: Mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run_here(mistake, tmp_path, monkeypatch, capfd)


@pytest.mark.soak
@pytest.mark.parametrize("mistake", draw(300, seed=SEED + 1), ids=str)
def test_300_mistakes_are_one_line_each(
    mistake: Mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run_here(mistake, tmp_path, monkeypatch, capfd)


@pytest.mark.soak
@pytest.mark.parametrize("mistake", draw(15, seed=SEED + 2), ids=str)
def test_it_is_so_in_processes_of_their_own(mistake: Mistake, run_pretrain) -> None:
    if any("\0" in argument for argument in mistake.arguments):
        pytest.skip("no process can be given a zero byte")
    mistake.write_files(run_pretrain.folder)
    done: subprocess.CompletedProcess = run_pretrain(*mistake.arguments, module=mistake.command, HOME=str(run_pretrain.folder / "home"))
    check(mistake, done.returncode, done.stdout, done.stderr)
