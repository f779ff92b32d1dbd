"""One process per rank on this machine: start them, watch them, end them together.

Ranks report over a pipe. One that fails stays, with its sockets open, until it is ended: so the others do not fail too with errors
about a lost peer; and where they do all the same, a user's mistake is still shown alone.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from pretrain.errors import UserError

STOPPED_ON_REQUEST = 85
_ORDERLY = (0, STOPPED_ON_REQUEST)
_SETTLING_SECONDS = 1.0  # for the others' reports after a failure
_GRACE_SECONDS = 5.0  # for one that is ended
_LEAVING_SECONDS = 60.0  # for one that has finished


@dataclass(frozen=True)
class _Report:
    """How a rank ended: its exit code and, after the user's mistake, the message or, after a fault, the traceback."""

    code: int
    user_error: str | None = None
    fault: str | None = None


@dataclass
class _Rank:
    process: BaseProcess
    reports: Connection
    report: _Report | None = None

    @property
    def finished(self) -> bool:
        return self.report is not None and self.report.code in _ORDERLY

    def collect(self) -> None:
        """Note the report, or the death without one."""
        try:
            if self.report is None and self.reports.poll():
                self.report = self.reports.recv()
        except EOFError:
            pass
        if self.report is None and self.process.exitcode is not None:
            code = self.process.exitcode
            self.report = _Report(code if code > 0 else 128 - code)


def run_ranks(entry: Callable[..., int], arguments: tuple, environments: list[Mapping[str, str]]) -> int:
    """Call `entry(*arguments)` in one new process per environment, which is set before anything else is imported there.

    Returns 0, or 85 when the ranks stopped on request, or the exit code of the first that failed: its end is the others' too, and its
    `UserError` is raised here. SIGTERM and Ctrl-C end all ranks.
    """
    context = multiprocessing.get_context("spawn")
    ranks: list[_Rank] = []
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        for environment in environments:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_rank_main, args=(entry, arguments, dict(environment), sender))
            process.start()
            sender.close()
            ranks.append(_Rank(process, receiver))
        return _watch(ranks)
    finally:
        _end(ranks)
        signal.signal(signal.SIGTERM, before)


def _watch(ranks: list[_Rank]) -> int:
    while all(rank.report is None or rank.finished for rank in ranks):
        running = [rank for rank in ranks if rank.report is None]
        if not running:
            return max(rank.report.code for rank in ranks if rank.report)
        _collect(running)
    return _explain(ranks)


def _explain(ranks: list[_Rank]) -> int:
    """After the first failure: hear what the other ranks have to say about it, then show the cause, and only that."""
    first = next(rank.report for rank in ranks if rank.report and not rank.finished)
    deadline = time.monotonic() + _SETTLING_SECONDS
    while (running := [rank for rank in ranks if rank.report is None]) and time.monotonic() < deadline:
        _collect(running, deadline - time.monotonic())
    reports = {number: rank.report for number, rank in enumerate(ranks) if rank.report}
    for report in reports.values():
        if report.user_error:
            raise UserError(report.user_error)
    for number, report in reports.items():
        if report.fault:
            print(f"rank {number} failed:\n{report.fault}", file=sys.stderr, end="", flush=True)
    return first.code


def _collect(running: list[_Rank], seconds: float | None = None) -> None:
    wait([rank.reports for rank in running] + [rank.process.sentinel for rank in running], seconds)
    for rank in running:
        rank.collect()


def _end(ranks: list[_Rank]) -> None:
    """Let those that finished leave, end the rest, and return when all are gone."""
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)
    }  # a second one must leave no orphans
    begun = time.monotonic()
    for rank in ranks:
        if not rank.finished:
            rank.process.terminate()
    for rank in ranks:
        patience = _LEAVING_SECONDS if rank.finished else _GRACE_SECONDS
        rank.process.join(max(0.0, begun + patience - time.monotonic()))
        if rank.process.is_alive():
            rank.process.kill()
            rank.process.join()
    for number, handler in before.items():
        signal.signal(number, handler)


def _rank_main(entry: Callable[..., int], arguments: tuple, environment: dict[str, str], reports: Connection) -> None:
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends Ctrl-C to all; the launcher decides
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        report = _Report(int(entry(*arguments)))
    except UserError as error:
        report = _Report(2, str(error))
    except SystemExit as leaving:
        report = _Report(leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None))
    except BaseException:
        report = _Report(1, fault=traceback.format_exc())
    reports.send(report)
    if report.code not in _ORDERLY:
        threading.Event().wait(_GRACE_SECONDS)
    sys.exit(report.code)


def _leave_with_parent() -> None:
    """A launcher that was killed outright takes its ranks along."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)
