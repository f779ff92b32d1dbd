"""Imports point one way, and the heavy libraries stay behind their one door each."""

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = sorted(path.relative_to(REPOSITORY).as_posix() for folder in ("came", "pretrain") for path in (REPOSITORY / folder).rglob("*.py"))


class Import(NamedTuple):
    module: str
    when_imported: bool
    """Executed when the importing module is imported, not inside a function or under TYPE_CHECKING."""


@functools.cache
def imports(file: str) -> tuple[Import, ...]:
    return tuple(_walk(ast.parse((REPOSITORY / file).read_text()), True))


def _walk(node: ast.AST, when_imported: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, when_imported) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            assert child.level == 0, "imports are absolute"
            yield Import(child.module, when_imported)
            yield from (Import(f"{child.module}.{alias.name}", when_imported) for alias in child.names)
        else:
            deferred = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_type_checking(child)
            yield from _walk(child, when_imported and not deferred)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def importers(library: str, when_imported_only: bool = False) -> set[str]:
    """The files that import `library` or a part of it."""
    return {
        file
        for file in FILES
        for found in imports(file)
        if (found.module == library or found.module.startswith(f"{library}.")) and (found.when_imported or not when_imported_only)
    }


def outside(files: set[str], *allowed: str) -> list[str]:
    return sorted(file for file in files if not re.match("|".join(allowed), file))


def test_the_scan_sees_the_known_doors():
    """Guards the guard: an import that is known to be there is found."""
    assert "pretrain/config/compose.py" in importers("hydra", when_imported_only=True)
    assert "pretrain/world.py" in importers("torch") - importers("torch", when_imported_only=True)


def test_came_knows_nothing_of_the_harness():
    assert not outside(importers("pretrain"), "pretrain/")


def test_deepspeed_has_one_door_in_the_harness_and_is_lazy_in_came():
    assert not outside(importers("deepspeed"), r"pretrain/engine\.py", "came/layouts/", "came/verify/")
    assert not outside(importers("deepspeed", when_imported_only=True), "pretrain/")


def test_came_imports_triton_only_when_it_is_used():
    """A kernel is compiled against its module's names, so that its module imports Triton; nobody imports such a module but its own kind."""
    ours = {file for file in importers("triton", when_imported_only=True)}
    assert ours and not outside(importers("triton"), "came/kernels/") and "came/kernels/__init__.py" not in ours
    modules = {file.removesuffix(".py").replace("/", ".") for file in FILES if file.startswith("came/kernels/")} - {"came.kernels.__init__"}
    for module in modules:
        assert not outside(importers(module, when_imported_only=True), r"came/kernels/(?!__init__)")


def test_wandb_has_its_doors():
    assert not outside(importers("wandb"), r"pretrain/(wandb_follower|report|workspace)\b")
    assert not outside(importers("wandb_workspaces"), r"pretrain/workspace\.py")
    assert not importers("wandb", when_imported_only=True) | importers("wandb_workspaces", when_imported_only=True)


def test_matplotlib_is_asked_for_only_by_who_draws():
    assert not outside(importers("matplotlib"), r"pretrain/report/plots\.py")
    assert not importers("matplotlib", when_imported_only=True)


def test_each_format_has_one_reader():
    assert not outside(importers("datasets"), r"pretrain/data/hub\.py")
    assert not outside(importers("huggingface_hub"), r"pretrain/hub_files\.py")
    assert not outside(importers("pyarrow"), r"pretrain/data/parts\.py")
    assert not {file for library in ("datasets", "pyarrow", "tokenizers", "huggingface_hub") for file in importers(library, True)}


@pytest.mark.parametrize("library", ["hydra", "omegaconf"])
def test_hydra_ends_at_the_typed_config(library: str):
    assert not outside(importers(library), "pretrain/config/", r"pretrain/__main__\.py", r"pretrain/sweep/plugins\.py")


def test_no_process_that_trains_has_imported_submitit():
    """The extra `slurm` is the launcher's: it is asked for by name alone, by who has found its plugin."""
    assert not importers("submitit") | importers("hydra_plugins")


BELOW = (("errors", "exit_codes", "orphans", "user_path"), ("config",), ("batch_plan", "distributed", "network", "world"))
_COMMANDS = ("launch", "spawn", "prepare", "sample", "evaluate", "finetune", "compare", "export", "report", "sync", "workspace", "sweep")
ABOVE = (("train",), _COMMANDS, ("__main__",))
"""Named from the bottom up; every other module of the harness lies between. A module imports its own layer and those below."""


def layer_of(module: str) -> int:
    name = module.split(".")[1]
    for number, names in [*enumerate(BELOW), *enumerate(ABOVE, start=len(BELOW) + 1)]:
        if name in names:
            return number
    return len(BELOW)


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("pretrain/") and not file.endswith("pretrain/__init__.py")])
def test_imports_point_downwards(file: str):
    own = layer_of(file.removesuffix(".py").replace("/", "."))
    targets = {found.module for found in imports(file) if found.module.startswith("pretrain.") and found.module != "pretrain.__version__"}
    assert not [target for target in targets if layer_of(target) > own]


def test_every_library_that_is_imported_is_a_declared_dependency():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = [entry for extra in ("dashboards", "plots") for entry in project["optional-dependencies"][extra]]
    declared = [*project["dependencies"], *extras]
    names = {re.split(r"[<>=! ]", entry)[0].replace("-", "_") for entry in declared}
    modules = {"hydra_core": "hydra", "pyyaml": "yaml"}
    allowed = {modules.get(name, name) for name in names} | set(sys.stdlib_module_names) | {"came", "pretrain", "triton"}
    used = {found.module.partition(".")[0] for file in FILES for found in imports(file)}
    assert used <= allowed


def test_the_top_level_holds_only_what_it_should():
    """A stranger sees the whole product in eight names."""
    import subprocess

    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {name.partition("/")[0] for name in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= {
        "pyproject.toml", "configs", "came", "pretrain", "scripts", "tests", "README.md",
    }  # fmt: skip
