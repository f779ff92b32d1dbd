"""A wheel installed elsewhere runs from any folder, with the configuration inside it."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True, timeout=300)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel, and this environment's libraries behind it."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=120)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet", str(wheel)]
    subprocess.run(install, check=True, timeout=300)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    return python


@pytest.fixture
def elsewhere(installed: Path, tmp_path: Path):
    """Runs the installed package's command line in an empty folder, with no way back to the checkout."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [str(installed), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    return run


def test_the_wheel_carries_both_packages_and_every_yaml_file(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"pretrain/_{path.relative_to(REPOSITORY).as_posix()}" for path in (REPOSITORY / "configs").rglob("*.yaml")} <= names
    modules = {path.relative_to(REPOSITORY).as_posix() for folder in ("came", "pretrain") for path in (REPOSITORY / folder).rglob("*.py")}
    page = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "pretrain" / "report" / "page").iterdir()}
    assert modules | page | {"came/py.typed"} <= names and len(page) > 4
    assert not [name for name in names if name.startswith(("tests/", "scripts/", "configs/"))]


def test_it_runs_from_the_wheel_not_from_the_checkout(elsewhere, installed: Path):
    done = elsewhere("-c", "import pretrain, came; print(pretrain.__file__, came.__file__)")
    assert done.returncode == 0, done.stderr
    assert all(path.startswith(str(installed.parents[1])) for path in done.stdout.split())


def test_help_lists_the_choices(elsewhere):
    done = elsewhere("-m", "pretrain", "--help")
    assert done.returncode == 0 and "bert_32k" in done.stdout, done.stderr


def test_a_configuration_composes(elsewhere):
    done = elsewhere("-m", "pretrain", "--cfg", "job", "+experiment=gpt2_xl")
    assert done.returncode == 0 and "num_layers: 48" in done.stdout, done.stderr


def test_the_plan_is_printed_for_ranks_that_are_not_there(elsewhere, tmp_path: Path):
    done = elsewhere("-m", "pretrain", "+experiment=bert_32k", "run.dry_run=true", "launch.num_processes=8")
    assert done.returncode == 0, done.stderr
    assert "32,768" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_report_is_written(elsewhere, tmp_path: Path):
    run = tmp_path / "demo"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "loss": 2.0}\n')
    done = elsewhere("-m", "pretrain.report", "demo", "-o", "page.html")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
