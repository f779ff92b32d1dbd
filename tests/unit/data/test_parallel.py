"""The workers of a preparation: they share the work, fail together, and never outlive their parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pretrain.data.parallel import for_each
from pretrain.errors import Unfinished, UserError


def touch(folder, number, on_bytes):
    (folder / str(number)).write_text(str(os.getpid()))
    on_bytes(10)


def test_every_item_is_done_once_by_other_processes_and_the_bytes_arrive(tmp_path):
    told = []
    for_each(touch, [(tmp_path, number) for number in range(20)], told.append)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == list(range(20))
    assert str(os.getpid()) not in {path.read_text() for path in tmp_path.iterdir()}
    assert sum(told) == 200


def fail(number, on_bytes):
    if number == 1:
        raise UserError("number 1 is bad")
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("number, error, message", [(1, UserError, "number 1 is bad"), (2, Unfinished, "the same command goes on")])
def test_a_failure_ends_all(number, error, message):
    with pytest.raises(error, match=message):
        for_each(fail, [(number,), (0,), (0,)], lambda num_bytes: None)


def sleep_for_ever(number, on_bytes):
    time.sleep(600)


def test_workers_leave_with_a_parent_that_was_killed():
    code = "from pretrain.data.parallel import for_each; from tests.unit.data.test_parallel import sleep_for_ever; "
    code += "for_each(sleep_for_ever, [(0,), (1,)], lambda num_bytes: None)"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    deadline = time.monotonic() + 60
    while len(workers := psutil.Process(parent.pid).children(recursive=True)) < 3 and time.monotonic() < deadline:  # and a resource tracker
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert len(workers) >= 2 and alive == []
