"""One process per rank on this machine: start them, watch them, end them together.

Ranks report over a pipe. One that fails stays, with its sockets open, until it is ended: so the others do not first fail too with
errors about a lost peer, and only the true cause is shown.
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
_GRACE_SECONDS = 5.0  # for one that is ended
_LEAVING_SECONDS = 60.0  # for one that has finished


@dataclass(frozen=True)
class _Report:
    """How a rank ended: its exit code and, after the user's mistake, the message."""

    code: int
    user_error: str | None = None


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
    while True:
        running = [rank for rank in ranks if rank.report is None]
        failed = next((rank.report for rank in ranks if rank.report and not rank.finished), None)
        if failed and failed.user_error:
            raise UserError(failed.user_error)
        if failed or not running:
            return failed.code if failed else max(rank.report.code for rank in ranks if rank.report)
        wait([rank.reports for rank in running] + [rank.process.sentinel for rank in running])
        for rank in running:
            rank.collect()


def _end(ranks: list[_Rank]) -> None:
    """Let those that finished leave, end the rest, and return when all are gone."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}  # a second one must leave no orphans
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
        print(f"rank {environment.get('RANK')} failed:\n{traceback.format_exc()}", file=sys.stderr, end="", flush=True)
        report = _Report(1)
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
