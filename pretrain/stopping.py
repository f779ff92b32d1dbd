"""A request to stop (SIGTERM, SIGUSR1, SIGINT), from the moment it arrives to the exit code.

At start-up and during preparation nothing can be lost: the process ends at once, with exit code 85. While training is `held()` the request
is noted, and the loop stops after its step with a checkpoint. The launcher's own process passes it on to the ranks. A second request ends
everything at once; what comes within a second of the first is the same one, which a terminal, torchrun and Slurm may all deliver.

Python's own handlers do not run while the main thread waits in a collective or for a rendezvous, so a thread listens here.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker

from pretrain.exit_codes import STOPPED_ON_REQUEST

_STOP = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_SAVE = signal.SIGUSR2
_HEARD = (*_STOP, _SAVE)
_SAME_REQUEST_SECONDS = 1.0
_FAREWELL_SECONDS = 2.0


class _Listener:
    """What this process does with a request now; one for the life of a process."""

    def __init__(self) -> None:
        self.first_at: float | None = None
        self.save = False
        self.held = False
        self.pass_on: Callable[[int], None] | None = None
        self.farewell: Callable[[], None] = lambda: None

    def receive(self, number: int) -> None:
        """In the thread, for each signal that arrives."""
        if number == _SAVE:
            self.save = self.held
            if self.pass_on:
                self.pass_on(number)
        if number not in _STOP:
            return
        now = time.monotonic()
        if self.first_at is None:
            self.first_at = now
            self._first(number)
        elif now - self.first_at >= _SAME_REQUEST_SECONDS:
            if self.pass_on:
                self.pass_on(signal.SIGKILL)
            os._exit(128 + number)  # before the main thread can explain what was asked for

    def _first(self, number: int) -> None:
        if self.held:
            _tell(f"{signal.Signals(number).name}: stopping after this step, with a checkpoint; a second one ends the run at once")
        elif self.pass_on:
            self.pass_on(signal.SIGTERM)
        else:
            self.leave()

    def leave(self) -> None:
        """End this process at once, as asked."""
        thread = threading.Thread(target=self.farewell, daemon=True)
        thread.start()
        thread.join(_FAREWELL_SECONDS)
        _end(STOPPED_ON_REQUEST)


_listener = _Listener()


def listen() -> None:
    """From now on requests are heard, and those that waited for it (`kept_from_children`); to be called in the main thread."""
    sender, receiver = socket.socketpair()
    sender.setblocking(False)
    for number in _HEARD:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)

    def hear() -> None:
        with sender, receiver:
            while True:
                for number in receiver.recv(64):
                    _listener.receive(number)

    threading.Thread(target=hear, name="requests", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)


@contextmanager
def held() -> Iterator[None]:
    """In the block a request is noted, for whoever asks `requested`; one that nobody has asked for ends the process behind the block."""
    _listener.held = True
    yield
    _listener.held = False
    if _listener.first_at is not None:
        _listener.leave()


@contextmanager
def passed_on(to: Callable[[int], None]) -> Iterator[None]:
    """In the block `to` is called with what the ranks are to be sent: SIGTERM at a request, SIGKILL at the second, SIGUSR2."""
    _listener.pass_on = to
    yield
    _listener.pass_on = None


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Signals for processes that are started in the block wait until these `listen`, where they would kill a process that has only begun."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    try:
        resource_tracker.ensure_running()  # multiprocessing starts it before its first process, and unblocks SIGINT and SIGTERM then
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def requested() -> bool:
    """Whether this process has been asked to stop."""
    return _listener.first_at is not None


def save_requested() -> bool:
    """Whether it has been asked (SIGUSR2) for a checkpoint since this was last called."""
    asked, _listener.save = _listener.save, False
    return asked


def before_leaving(farewell: Callable[[], None]) -> None:
    """What to do before a request ends the process at once: a moment's work."""
    _listener.farewell = farewell


def over() -> None:
    """The run is complete or has stopped: from now on requests are ignored, in the interpreter's own last moments too."""
    _listener.first_at = None
    for number in _HEARD:
        signal.signal(number, signal.SIG_IGN)


def _tell(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        with suppress(OSError):
            os.write(2, f"{text}\n".encode())  # the main thread may be in the middle of a print


def _end(code: int) -> None:
    def flush() -> None:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()

    thread = threading.Thread(target=flush, daemon=True)  # the main thread may hold the streams
    thread.start()
    thread.join(_FAREWELL_SECONDS)
    os._exit(code)
