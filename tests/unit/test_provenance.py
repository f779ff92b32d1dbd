"""What a run says it was made with."""

import subprocess
from pathlib import Path

import pytest
import torch

from pretrain import __version__
from pretrain.provenance import git_revision, versions

IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *IDENTITY, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "file").write_text("one")
    git(folder, "add", "file")
    git(folder, "commit", "-qm", "one")
    return folder


def test_versions_are_those_that_are_imported() -> None:
    found = versions()
    assert found["torch"] == torch.__version__ and found["came-pretrain"] == __version__
    assert {"python", "transformers", "tokenizers", "deepspeed", "wandb"} <= found.keys()


def test_a_revision_is_dirty_when_a_tracked_file_differs(repository: Path) -> None:
    wanted = {"repository": "repository", "commit": git(repository, "rev-parse", "HEAD"), "dirty": False}
    (repository / "untracked").touch()
    assert git_revision(repository) == wanted
    (repository / "file").write_text("two")
    (repository / "folder").mkdir()
    assert git_revision(repository / "folder") == wanted | {"dirty": True}


def test_there_is_none_outside_a_repository_or_without_commits_or_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_revision(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert git_revision(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert git_revision(tmp_path) is None


def test_a_git_that_hangs_is_not_waited_for(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 100\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("pretrain.provenance._GIT_SECONDS", 0.2)
    assert git_revision(repository) is None
