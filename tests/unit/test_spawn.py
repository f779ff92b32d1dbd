"""One process per rank: together they begin, and together they end, whatever happens to one of them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pretrain.errors import UserError
from pretrain.spawn import run_ranks
from tests.unit import rank_entries

REPOSITORY = Path(__file__).resolve().parents[2]
TWO_RANKS = [{"RANK": "0", "COLOUR": "red"}, {"RANK": "1", "COLOUR": "blue"}]


def alive(folder: Path) -> list[int]:
    """The noted ranks that still run."""
    return [pid for pid in (int(file.read_text().split()[0]) for file in folder.glob("rank*")) if is_running(pid)]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_every_rank_runs_in_its_own_process_and_environment(tmp_path: Path):
    assert run_ranks(rank_entries.note, (tmp_path,), TWO_RANKS) == 0
    (pid0, red), (pid1, blue) = ((tmp_path / f"rank{rank}").read_text().split() for rank in (0, 1))
    assert (red, blue) == ("red", "blue")
    assert len({pid0, pid1, str(os.getpid())}) == 3


def test_a_stop_on_request_waits_for_all_and_keeps_its_code(tmp_path: Path):
    assert run_ranks(rank_entries.stop_on_request, (tmp_path,), TWO_RANKS) == 85
    assert (tmp_path / "rank1").exists()


def test_a_user_error_in_one_rank_is_raised_once_and_ends_the_others(tmp_path: Path):
    with pytest.raises(UserError, match="^the vocabulary does not fit$"):
        run_ranks(rank_entries.user_error_on_rank_1, (tmp_path,), TWO_RANKS)
    assert (tmp_path / "rank0").exists() and not alive(tmp_path)


def test_a_user_error_is_shown_alone_though_another_rank_failed_first(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    with pytest.raises(UserError, match="^the settings differ$"):
        run_ranks(rank_entries.user_error_on_rank_0_seen_by_rank_1_as_a_lost_peer, (tmp_path,), TWO_RANKS)
    assert capfd.readouterr().err == ""


def test_the_traceback_of_a_fault_is_shown_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    run_ranks(rank_entries.fault_on_rank_1, (tmp_path,), TWO_RANKS)
    errors = capfd.readouterr().err
    assert errors.startswith("rank 1 failed:\nTraceback") and errors.count("ZeroDivisionError: a fault") == 1


@pytest.mark.parametrize(("entry", "code"), [(rank_entries.fault_on_rank_1, 1), (rank_entries.killed_on_rank_1, 128 + signal.SIGKILL)])
def test_a_fault_in_one_rank_ends_the_others_with_its_code(tmp_path: Path, entry, code: int):
    assert run_ranks(entry, (tmp_path,), TWO_RANKS) == code
    assert not alive(tmp_path)


def test_a_frozen_rank_is_named_though_another_died_of_waiting_for_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert run_ranks(rank_entries.frozen_on_rank_0_and_aborted_on_rank_1, (tmp_path,), TWO_RANKS) == 1
    pid = (tmp_path / "rank0").read_text().split()[0]
    assert f"rank 0 does not answer: it is stopped by a signal (pid {pid} on " in capfd.readouterr().err
    assert not alive(tmp_path)


def test_a_rank_that_ignores_sigterm_is_ended_all_the_same(tmp_path: Path):
    with pytest.raises(UserError):
        run_ranks(rank_entries.ignore_sigterm, (tmp_path,), TWO_RANKS)
    assert not alive(tmp_path)


def _hear_interrupts() -> None:
    """A shell's background jobs ignore SIGINT, and so would everything that a test suite started there starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def entry() -> str:
    return "wait_for_ever"


@pytest.fixture
def launcher(tmp_path: Path, entry: str):
    """A launcher in its own process whose two ranks wait for ever."""
    code = (
        "import sys; from pathlib import Path; from pretrain import stopping; from pretrain.spawn import run_ranks\n"
        "from tests.unit import rank_entries\nstopping.listen()\n"
        f"sys.exit(run_ranks(rank_entries.{entry}, (Path({str(tmp_path)!r}),), {TWO_RANKS!r}))"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=_hear_interrupts
    )
    try:
        assert wait_until(lambda: len(alive(tmp_path)) == 2)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_request_to_the_launcher_reaches_the_ranks(launcher: subprocess.Popen, tmp_path: Path, number: int):
    launcher.send_signal(number)
    _, errors = launcher.communicate(timeout=30)
    assert (launcher.returncode, errors) == (85, "")
    assert not alive(tmp_path)


def test_ctrl_c_in_the_terminal_reaches_all_at_once(launcher: subprocess.Popen, tmp_path: Path):
    os.killpg(launcher.pid, signal.SIGINT)
    _, errors = launcher.communicate(timeout=30)
    assert (launcher.returncode, errors) == (85, "")
    assert not alive(tmp_path)


def test_asking_for_stacks_in_the_terminal_ends_nobody(launcher: subprocess.Popen, tmp_path: Path):
    os.killpg(launcher.pid, signal.SIGQUIT)
    os.killpg(launcher.pid, signal.SIGTERM)
    _, errors = launcher.communicate(timeout=30)
    assert (launcher.returncode, errors) == (85, "")
    assert not alive(tmp_path)


def test_a_request_to_one_rank_ends_all(launcher: subprocess.Popen, tmp_path: Path):
    os.kill(alive(tmp_path)[0], signal.SIGTERM)
    _, errors = launcher.communicate(timeout=30)
    assert (launcher.returncode, errors) == (85, "")
    assert not alive(tmp_path)


@pytest.mark.parametrize("entry", ["wait_for_ever_held"])
def test_a_second_request_ends_at_once_what_the_first_does_not(launcher: subprocess.Popen, tmp_path: Path):
    launcher.terminate()
    assert wait_until(lambda: all((tmp_path / f"asked{rank}").exists() for rank in (0, 1)))
    time.sleep(1.0)  # a request that follows sooner counts as the same one
    launcher.terminate()
    _, errors = launcher.communicate(timeout=30)
    assert launcher.returncode == 128 + signal.SIGTERM
    assert errors == "SIGTERM: stopping after this step, with a checkpoint; a second one ends the run at once\n"
    assert not alive(tmp_path)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_request_that_comes_while_the_ranks_are_only_starting_waits_until_they_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
):
    monkeypatch.setenv("EARLY_SIGNAL", name)
    assert run_ranks(rank_entries.wait_for_ever, (tmp_path,), TWO_RANKS) == 85
    assert capfd.readouterr().err == ""
    assert not alive(tmp_path)


def test_ranks_leave_when_the_launcher_is_killed_outright(launcher: subprocess.Popen, tmp_path: Path):
    launcher.kill()
    launcher.wait()
    assert wait_until(lambda: not alive(tmp_path), seconds=20)
