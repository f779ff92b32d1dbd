"""What all tests share: a command line that runs the harness as a user would, in a folder of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """Inherited by every process that a test starts: no GPU, one thread each, nothing sent anywhere."""
    os.environ.update(
        OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", WANDB_MODE="offline", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1"
    )
    for name in _RANK_VARIABLES:
        os.environ.pop(name, None)


@pytest.fixture
def run_pretrain(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """`run_pretrain("train.num_steps=3")` runs `python -m pretrain train.num_steps=3` in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()

    def run(*arguments: str, module: str = "pretrain", timeout: float = 300, **environment: str) -> subprocess.CompletedProcess:
        variables = os.environ | {"PYTHONPATH": str(_REPOSITORY)} | environment
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=timeout)

    run.folder = folder
    return run


@pytest.fixture
def fork_pretrain(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """As `run_pretrain`, but forked from a process that has imported everything: for commands that start no ranks, where the start of
    Python is not what is tested."""
    from tests.forked_runs import forked_command

    folder = tmp_path / "here"
    folder.mkdir(exist_ok=True)

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess:
        return forked_command(folder, *arguments, **settings)

    run.folder = folder
    return run


@pytest.fixture
def one_error_line() -> Callable[[subprocess.CompletedProcess], str]:
    """The message of a run that must have ended with one `error:` line and exit code 2."""

    def check(done: subprocess.CompletedProcess) -> str:
        lines = done.stderr.strip().splitlines()
        assert done.returncode == 2, done.stderr
        assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
        return lines[0].removeprefix("error: ")

    return check
