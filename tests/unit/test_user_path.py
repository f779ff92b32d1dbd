from pathlib import Path

import pytest

from pretrain.errors import UserError
from pretrain.user_path import user_path


def test_the_home_is_filled_in_and_nothing_has_to_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/runs/it") == tmp_path / "runs" / "it"
    assert user_path(tmp_path / "nothing" / "*.txt") == tmp_path / "nothing" / "*.txt"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("~nouserx/runs", "run.dir=~nouserx/runs begins with a home that this machine does not know; give the whole path"),
        ("x" * 300, "run.dir=x* is longer than the name of a file can be; give a shorter one"),
        ("a\0b", "run.dir='a.x00b' is no path .*; give another one"),
    ],
)
def test_what_can_be_no_file_is_the_user_s_to_mend(given: str, said: str) -> None:
    with pytest.raises(UserError, match=f"^{said}$"):
        user_path(given, "run.dir=")
