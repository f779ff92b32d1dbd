"""Whoever type-checks a program that uses `came` is told its types (`py.typed`), and they hold."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_came_is_marked_as_typed_and_its_types_hold() -> None:
    assert (REPOSITORY / "came" / "py.typed").is_file()
    checked = subprocess.run([sys.executable, "-m", "mypy"], cwd=REPOSITORY, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
