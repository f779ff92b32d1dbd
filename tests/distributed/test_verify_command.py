"""`python -m came.verify`: what it says, when it fails, and that it can."""

import dataclasses
import importlib.util
import subprocess
import sys
import time

import pytest

from came.verify import __main__ as command
from came.verify import matrix
from came.verify.probe import OPTIMIZERS, Cell


def verify(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "came.verify", *arguments], capture_output=True, text=True, timeout=300)


def test_help_needs_no_torch() -> None:
    code = (
        "import runpy, sys; sys.argv = ['came.verify', '--help']\n"
        "try: runpy.run_module('came.verify', run_name='__main__')\n"
        "except SystemExit: assert 'torch' not in sys.modules"
    )
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "--optimizers" in done.stdout, done.stderr
    assert time.monotonic() - begun < 5  # 0.1 s on an idle machine


def test_the_command_offers_what_the_matrix_has() -> None:
    assert tuple(OPTIMIZERS) == command.OPTIMIZERS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ranks", "0"), "argument --ranks: '0': each must be from 1 to 64"),
        (("--ranks", "two"), "argument --ranks: 'two' is not a list of whole numbers such as 1,2,3"),
        (("--stages", "4"), "argument --stages: '4' is not one of 0, 1, 2, 3, fsdp2"),
        (("--dtype", "fp16"), "argument --dtype: 'fp16' is not one of fp32, bf16"),
        (("--optimizers", "came,adam"), "argument --optimizers: 'adam' is not one of came, adamw, lamb, adafactor, sm3"),
        (("--fast",), "unrecognized arguments: --fast"),
    ],
)
def test_bad_arguments_get_one_line(capsys: pytest.CaptureFixture, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(SystemExit) as leaving:
        command.main(list(arguments))
    assert leaving.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_without_deepspeed_it_says_what_can_be_done(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert command.main(["--stages", "0,fsdp2"]) == 2
    assert capsys.readouterr().err == "error: DeepSpeed is not installed; install deepspeed, or verify FSDP2 alone: --stages fsdp2\n"


@pytest.fixture(scope="module")
def done() -> subprocess.CompletedProcess:
    return verify("--ranks", "2", "--stages", "0,3,fsdp2", "--dtype", "bf16", "--optimizers", "came")


def test_a_run_ends_with_a_table_and_a_verdict(done: subprocess.CompletedProcess) -> None:
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "3 of 3 cells on 2 ranks"
    rows = {cells[1]: cells for cells in ([cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:5])}
    assert [rows[stage][6] for stage in ("0", "3", "fsdp2")] == ["shown", "pass", "pass"]
    assert float(rows["0"][5]) > 1e-4 and float(rows["3"][5]) < 1e-5
    assert done.stdout.splitlines()[-1].startswith("all 3 cells hold; largest errors: weights ")


def test_beside_it_stands_what_a_flat_partition_makes_of_the_algorithm(done: subprocess.CompletedProcess) -> None:
    _, stage3, fsdp2 = ([cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:5])
    assert float(stage3[9]) > 0.5  # most of the update is wrong
    assert int(stage3[10].replace(",", "")) > int(stage3[7].replace(",", ""))  # and its state is AdamW's
    assert fsdp2[9:] == ["-", "-"]


GOOD = matrix.Row(Cell("came", 3, "fp32", 2), 2, 1e-7, 1e-6, [100, 100], [100, 100], [200, 200], None)


@pytest.mark.parametrize(
    ("changed", "code", "mark"),
    [
        ({}, 0, "pass"),
        ({"weight": 6e-7}, 1, "FAIL"),
        ({"update": 2e-5}, 1, "FAIL"),
        ({"weight": float("nan")}, 1, "FAIL"),
        ({"state_bytes": [100, 104]}, 1, "FAIL: [100, 100] bytes predicted, [100, 104] found"),
        ({"cell": Cell("came", 0, "bf16", 2), "update": 2e-3}, 0, "shown"),
    ],
)
def test_one_cell_that_does_not_hold_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, changed: dict, code: int, mark: str
) -> None:
    row = dataclasses.replace(GOOD, **changed)
    monkeypatch.setattr(matrix, "run", lambda chosen, ranks: [GOOD, row])
    assert command.main(["--stages", "3"]) == code
    printed = capsys.readouterr().out
    assert f"| {mark} " in printed.splitlines()[3]
    assert ("1 of 2 cells FAIL" in printed) == bool(code)
