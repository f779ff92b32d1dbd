"""The time from the command to the end of the first step: by part, nothing twice and nothing left out, across processes."""

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pretrain import startup

REPOSITORY = Path(__file__).resolve().parents[2]
TICK = 1 / os.sysconf("SC_CLK_TCK")
TELL = "from pretrain import startup; import json; startup.mark('python'); print(json.dumps(startup.finish('first_step')))"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock will say, for a process that began at 100."""
    times: list[float] = []
    monkeypatch.setattr(startup, "_marks", startup._Marks(100.0))
    monkeypatch.setattr(startup, "_finished", False)
    monkeypatch.setattr(startup, "_now", lambda: times.pop(0))
    return times


def told(**variables: str) -> dict[str, float]:
    """What a new process finds that marks `python` and finishes with `first_step`."""
    done = subprocess.run([sys.executable, "-c", TELL], cwd=REPOSITORY, env=os.environ | variables, capture_output=True, check=True)
    return json.loads(done.stdout)


def test_parts_add_up_and_may_come_again(clock: list[float]) -> None:
    clock += [100.5, 102.0, 102.25, 104.0]
    for part in ("data", "imports", "data"):
        startup.mark(part)
    found = startup.finish("first_step")
    assert found == {"data": 0.75, "imports": 1.5, "first_step": 1.75} and sum(found.values()) == 104.0 - 100.0


def test_it_is_told_once_and_then_nothing_counts(clock: list[float]) -> None:
    clock += [101.0]
    assert startup.finish("first_step") == {"first_step": 1.0}
    startup.mark("data")  # would ask the clock, which has no time left
    assert startup.finish("first_step") is None


def test_a_process_of_its_own_begins_where_it_was_started() -> None:
    before = time.monotonic()
    found = told()
    assert list(found) == ["python", "first_step"] and found["python"] > TICK  # an interpreter does not start faster
    assert sum(found.values()) <= time.monotonic() - before + TICK


def test_a_rank_goes_on_with_the_marks_of_the_process_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(startup, "_marks", startup._Marks(startup._now() - 50.0))
    startup.mark("settings")
    handed = startup.for_ranks()
    before = time.monotonic()
    found = told(**handed)
    assert list(found) == ["settings", "python", "first_step"]
    assert 50.0 <= found["settings"] < 51.0
    assert 0 < found["python"] + found["first_step"] <= time.monotonic() - before + 0.1


def test_the_line_says_when_the_step_began_and_leaves_out_what_took_no_time() -> None:
    parts = {"settings": 0.51, "process_group": 0.049, "imports": 3.06, "first_step": 0.4}
    assert startup.describe(parts) == "first step begun 3.6 s and done 4.0 s after the command: settings 0.5, imports 3.1, first step 0.4"


def test_the_collector_waits_while_libraries_are_imported_and_only_then(clock: list[float]) -> None:
    clock += [103.0]
    with startup.imports():
        assert not gc.isenabled()
    assert gc.isenabled() and startup._marks.seconds == {"imports": 3.0}
    with pytest.raises(ImportError), startup.imports():
        raise ImportError
    assert gc.isenabled()
    gc.unfreeze()
