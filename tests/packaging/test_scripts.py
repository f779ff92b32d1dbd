"""scripts/demo and scripts/test: the environment is made once, made again when it must be, and nobody else's is touched.

A stand-in for Python plays the installation, so that this takes no network and no minutes.
"""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]

STAND_IN = """#!/usr/bin/env bash
case "$1 $2" in
"--version ") echo "Python 3.10.1" ;;
"-c import sys"*) [ -z "${OLD_PYTHON:-}" ] ;;
"-c import venv"*) [ -z "${NO_VENV:-}" ] ;;
"-c import os"*) echo 3 ;;
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip") echo "$*" >>"$INSTALLATIONS" && [ -z "${NO_NETWORK:-}" ] ;;
*) echo "ran: $*" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "scripts").mkdir(parents=True)
    for name in ("environment", "demo", "test", "constraints.txt"):
        shutil.copy(REPOSITORY / "scripts" / name, folder / "scripts")
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    return folder


@pytest.fixture
def call(checkout: Path, tmp_path: Path):
    """`call("demo", "train.num_steps=3")` runs the script in another folder; `call.installations()` counts the installations."""

    def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        variables = os.environ | {"PYTHON": str(tmp_path / "python"), "INSTALLATIONS": str(tmp_path / "installations")} | environment
        variables = {name: value for name, value in variables.items() if name != "VENV" or "VENV" in environment}
        command = [str(checkout / "scripts" / script), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=60)

    def installations() -> list[str]:
        log = tmp_path / "installations"
        return log.read_text().splitlines() if log.exists() else []

    run.installations = installations
    return run


def test_the_demo_installs_the_tested_versions_once_and_passes_its_arguments_on(call, checkout: Path):
    for _ in range(2):
        done = call("demo", "train.num_steps=3", "run.name=a b")
        assert done.returncode == 0, done.stderr
        assert "ran: -m pretrain train.num_steps=3 run.name=a b" in done.stdout
    (installation,) = call.installations()
    assert f"--constraint {checkout}/scripts/constraints.txt --editable {checkout}[test]" in installation


@pytest.mark.parametrize("changed", ["pyproject.toml", "scripts/constraints.txt"])
def test_changed_requirements_make_it_anew(call, checkout: Path, changed: str):
    call("demo")
    with (checkout / changed).open("a") as file:
        file.write("# changed\n")
    call("demo")
    assert len(call.installations()) == 2


def test_a_half_made_environment_is_made_anew(call, checkout: Path):
    broken = call("demo", NO_NETWORK="1")
    assert broken.returncode == 2 and "error: the installation failed" in broken.stderr and "ran:" not in broken.stdout
    (checkout / ".venv" / "rubbish").write_text("")
    assert "ran: -m pretrain" in call("demo").stdout
    assert not (checkout / ".venv" / "rubbish").exists()


def test_the_environment_can_lie_elsewhere(call, checkout: Path, tmp_path: Path):
    assert call("demo", VENV="elsewhere").returncode == 0
    assert (tmp_path / "elsewhere" / "bin" / "python").exists() and not (checkout / ".venv").exists()


def test_a_folder_of_someone_else_is_left_alone(call, tmp_path: Path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("")
    done = call("demo", VENV=str(tmp_path / "precious"))
    assert done.returncode == 2 and "was not made by this script; remove it, or name another folder" in done.stderr
    assert (tmp_path / "precious" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("lack", "message"),
    [
        ("OLD_PYTHON", r"error: Python 3\.11 or newer is needed \(.*: Python 3\.10\.1\); install one, or name it: PYTHON="),
        ("NO_VENV", "error: .* cannot make virtual environments; install its venv module"),
    ],
)
def test_what_is_missing_is_said_in_one_line(call, checkout: Path, lack: str, message: str):
    done = call("demo", **{lack: "1"})
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and re.match(message, line), line
    assert not (checkout / ".venv").exists()


def test_the_tests_run_on_all_cores_and_soaks_only_when_asked(call):
    assert (
        "ran: -m pytest --numprocesses 3 --maxprocesses 8 --dist loadfile --no-loadscope-reorder tests/unit -k a or b\n"
        in call("test", "tests/unit", "-k", "a or b").stdout
    )
    assert "--dist loadfile --no-loadscope-reorder\n" in call("test").stdout
    assert "--dist loadfile --no-loadscope-reorder -m soak -x\n" in call("test", "--soak", "-x").stdout


def test_every_requirement_has_a_tested_version_within_its_range():
    lines = (REPOSITORY / "scripts" / "constraints.txt").read_text().splitlines()
    tested = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines if not line.startswith("#"))}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for entry in [*project["dependencies"], *(entry for extra in project["optional-dependencies"].values() for entry in extra)]:
        requirement = Requirement(entry)
        assert requirement.specifier.contains(tested[canonicalize_name(requirement.name)]), entry


@pytest.mark.parametrize(
    ("library", "version"), [("torch", "2.11.0"), ("torch", "2.13.0"), ("transformers", "5.17.0"), ("transformers", "5.23.0")]
)
def test_the_ranges_admit_what_is_promised(library: str, version: str):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (requirement,) = [found for found in map(Requirement, project["dependencies"]) if found.name == library]
    assert requirement.specifier.contains(version)
