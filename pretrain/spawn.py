"""One process per rank on this machine: start them, watch them, end them together.

Ranks report over a pipe. One that fails stays, with its sockets open, until it is ended: so the others do not fail too with errors
about a lost peer; and where they do all the same, the cause is shown alone.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from pretrain import rank_log, startup, stopping
from pretrain.errors import UserError
from pretrain.exit_codes import DONE, FAULT, STOPPED_ON_REQUEST
from pretrain.failures import ECHO, MISTAKE, VANISHED, Note, how_it_is, is_frozen
from pretrain.orphans import leave_with_parent

_ORDERLY = (DONE, STOPPED_ON_REQUEST)
_SETTLING_SECONDS = 1.0  # for the others' reports after a failure
_ECHO_SECONDS = 5.0  # the same where a rank has only lost touch: the others' own timeouts come in their turn
_GRACE_SECONDS = 5.0  # a rank that failed waits so long to be ended
_STACKS_SECONDS = 0.3  # for ranks that write their stacks
_LEAVING_SECONDS = 60.0  # for one that has finished


@dataclass(frozen=True)
class _Report:
    """How a rank ended: its exit code and, after a failure, the note."""

    code: int
    failure: Note | None = None


@dataclass
class _Rank:
    number: int
    process: BaseProcess
    reports: Connection
    report: _Report | None = None
    left_at_once: bool = False
    """On request, before it could agree with the others."""

    @property
    def frozen(self) -> bool:
        return self.process.pid is not None and is_frozen(self.process.pid)

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
        if self.report is None and self.process.exitcode == STOPPED_ON_REQUEST:
            self.report, self.left_at_once = _Report(STOPPED_ON_REQUEST), True
        if self.report is None and self.process.exitcode is not None:
            code = self.process.exitcode
            how = f"killed by {signal.Signals(-code).name} (pid {self.process.pid})" if code < 0 else f"with exit code {code}"
            self.report = _Report(code if code > 0 else 128 - code if code else FAULT, Note.vanished(self.number, self.number, how))


def run_ranks(entry: Callable[..., int], arguments: tuple, environments: list[Mapping[str, str]]) -> int:
    """Call `entry(*arguments)` in one new process per environment, which is set before anything else is imported there.

    Returns 0, or 85 when the ranks stopped on request, or the exit code of the first that failed: its end is the others' too, and its
    `UserError` is raised here. A request to stop (see `stopping`) is passed on to the ranks, which end when they can.
    """
    context = multiprocessing.get_context("spawn")
    ranks: list[_Rank] = []
    quit_before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)  # Ctrl-\ asks the ranks for their stacks; they inherit this until they can
    with stopping.passed_on(lambda number: _send(ranks, number)):
        try:
            with stopping.kept_from_children():
                for number, environment in enumerate(environments):
                    receiver, sender = context.Pipe(duplex=False)
                    process = context.Process(target=_rank_main, args=(number, entry, arguments, dict(environment), sender))
                    process.start()
                    sender.close()
                    ranks.append(_Rank(number, process, receiver))
            if stopping.requested():
                _send(ranks, signal.SIGTERM)  # to those that were not there yet
            return _watch(ranks)
        finally:
            _end(ranks)
            signal.signal(signal.SIGQUIT, quit_before)


def _send(ranks: list[_Rank], number: int) -> None:
    for rank in list(ranks):
        if rank.process.pid and rank.report is None:
            with suppress(ProcessLookupError):
                os.kill(rank.process.pid, number)


def _watch(ranks: list[_Rank]) -> int:
    asked = False
    while all(rank.report is None or rank.finished for rank in ranks):
        running = [rank for rank in ranks if rank.report is None]
        if not running:
            return max(rank.report.code for rank in ranks if rank.report)
        if not asked and any(rank.left_at_once for rank in ranks):
            asked = True
            _send(running, signal.SIGTERM)  # it may have been asked alone
        _collect(running)
    return _explain(ranks)


def _explain(ranks: list[_Rank]) -> int:
    """After the first failure: hear what the other ranks have to say about it, then show the cause, and only that."""
    _settle(ranks, _SETTLING_SECONDS)
    if _is_echo(ranks):
        _settle(ranks, _ECHO_SECONDS)
    reports = [rank.report for rank in ranks if rank.report and not rank.finished]
    failures = sorted(report.failure for report in reports if report.failure)
    if not failures:  # all ended alike, and said why themselves
        return reports[0].code
    cause = failures[0]
    if cause.kind == ECHO and any(rank.left_at_once for rank in ranks):
        return STOPPED_ON_REQUEST
    silent = [rank for rank in ranks if rank.report is None]
    frozen = [rank for rank in silent if rank.frozen]
    if cause.kind >= VANISHED:
        _send(silent, signal.SIGQUIT)  # they write their stacks, see rank_log
        time.sleep(_STACKS_SECONDS)
        # A rank that waits for a frozen one loses touch with it or, by NCCL's hand, its life.
        blamed = frozen or (silent if cause.kind == ECHO else [])
        if blamed:
            cause = Note.silent(blamed[0].number, blamed[0].number, how_it_is(blamed[0].process.pid))
    if cause.kind == MISTAKE:
        raise UserError(cause.text.removeprefix("error: "))
    print(cause.text, file=sys.stderr, flush=True)
    return next((report.code for report in reports if report.failure is cause), cause.code)


def _settle(ranks: list[_Rank], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (running := [rank for rank in ranks if rank.report is None and not rank.frozen]) and time.monotonic() < deadline:
        _collect(running, deadline - time.monotonic())


def _is_echo(ranks: list[_Rank]) -> bool:
    failures = [rank.report.failure for rank in ranks if rank.report and rank.report.failure]
    return bool(failures) and min(failures).kind == ECHO


def _collect(running: list[_Rank], seconds: float | None = None) -> None:
    wait([rank.reports for rank in running] + [rank.process.sentinel for rank in running], seconds)
    for rank in running:
        rank.collect()


def _end(ranks: list[_Rank]) -> None:
    """Let those that finished leave, kill the rest (nothing that a run has written depends on how it ends), and return when all are gone."""
    begun = time.monotonic()
    for rank in ranks:
        if not rank.finished:
            rank.process.kill()
    for rank in ranks:
        rank.process.join(max(0.0, begun + _LEAVING_SECONDS - time.monotonic()))
        if rank.process.is_alive():
            rank.process.kill()
            rank.process.join()


def _rank_main(number: int, entry: Callable[..., int], arguments: tuple, environment: dict[str, str], reports: Connection) -> None:
    os.environ.update(environment)
    startup.mark("processes")
    stopping.listen()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends Ctrl-C to all; the launcher decides
    leave_with_parent()
    try:
        report = _Report(int(entry(*arguments)))
    except BaseException as error:
        note = Note.of(error, number)
        rank_log.logger.info(note.text)
        rank_log.dump_stacks(note.text)
        report = _Report(note.code, note)
    rank_log.flush()
    reports.send(report)
    if report.code not in _ORDERLY:
        threading.Event().wait(_GRACE_SECONDS)
    sys.exit(report.code)
