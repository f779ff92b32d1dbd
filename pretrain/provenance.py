"""What a run was made with: versions of Python and the libraries, and the git revision."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from pretrain import __version__

_LIBRARIES = ("torch", "transformers", "tokenizers", "deepspeed", "wandb")
_REPOSITORY = Path(__file__).resolve().parents[1]
_GIT_SECONDS = 5.0
_PROCESSORS = Path("/proc/cpuinfo")


def provenance() -> dict[str, Any]:
    """`{"versions": {...}, "git": {...}}`, for the start of a run; takes milliseconds and never fails."""
    return {"versions": versions(), "git": git_revision()}


def versions() -> dict[str, str | None]:
    """Installed versions by name; None for a library that is not installed."""
    ours = {"came-pretrain": __version__, "python": platform.python_version()}
    return ours | {library: _version(library) for library in _LIBRARIES}


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def git_revision(folder: Path | None = None) -> dict[str, Any] | None:
    """`{"repository": name, "commit": hash, "dirty": bool}`: of `folder`, else of the checkout that this package runs from, else of
    the working directory; None outside a repository or without git. Dirty: a tracked file differs from the commit."""
    folder = folder or (_REPOSITORY if (_REPOSITORY / ".git").exists() else Path())
    try:
        top, commit = _git(folder, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        dirty = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return {"repository": Path(top).name, "commit": commit, "dirty": dirty}


def processor() -> str:
    """The name of this machine's processor, as far as it says."""
    try:
        lines = _PROCESSORS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_GIT_SECONDS, stdin=subprocess.DEVNULL)
    return done.stdout
