"""One rank fails, all end within seconds, and the user reads the cause alone.

A rank that fails leaves a note. Of several the weightiest is shown: a mistake of the user's, then a fault, then a rank that vanished
without a word or does not answer; that a rank lost touch with another is an echo of these, and shown only where there is nothing else.
Ranks started by torchrun or srun pin their notes to the store that they met at (`Board`), and each has a thread that looks there
(`Watch`): it also ends a rank that sits in a collective and would never hear of it. Ranks of our own hand their notes to the process
that started them (`spawn.py`).
"""

import json
import os
import re
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pretrain import rank_log
from pretrain.errors import ElsewhereError, UserError
from pretrain.exit_codes import FAULT, STOPPED_ON_REQUEST, USER_ERROR

MISTAKE, RAISED, VANISHED, SILENT, STOPPED, ECHO = range(6)

_LOST_TOUCH = re.compile(
    r"gloo|nccl|Failed to (recv|send)|Connection (closed|reset|refused)|Broken pipe|recvBytes|sendBytes|recvValue|remote process exited",
    re.IGNORECASE,
)
_EVERY_SECONDS = 0.5  # a look at the board
_SETTLING_SECONDS = 1.0  # for the others' notes
_ECHO_SECONDS = 3.0  # for a cause, where this rank has only lost touch
_LEAVING_SECONDS = 10.0  # for all of this; longer only where rank 0, which holds the board, does not answer
_FAREWELL_SECONDS = 2.0  # rank 0 keeps the board up for those who still read


@dataclass(frozen=True, order=True)
class Note:
    """How a rank failed. Of several notes the smallest is the cause."""

    kind: int
    """MISTAKE, RAISED, VANISHED, SILENT, STOPPED or ECHO."""
    rank: int
    author: int
    """The rank that wrote it: another, where `rank` had no time to."""
    code: int
    """Exit code of the run."""
    text: str
    """What the user reads."""

    @classmethod
    def of(cls, error: BaseException, rank: int) -> "Note":
        """For an exception that has just been caught."""
        if isinstance(error, UserError):
            return cls(MISTAKE, rank, rank, USER_ERROR, f"error: {error}")
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else FAULT
            return cls(RAISED, rank, rank, code or FAULT, f"rank {rank} left in the middle of the run, with exit code {error.code}")
        return cls(ECHO if _is_echo(error) else RAISED, rank, rank, FAULT, f"rank {rank} failed:\n{traceback.format_exc().rstrip()}")

    @classmethod
    def vanished(cls, rank: int, author: int, how: str) -> "Note":
        return cls(VANISHED, rank, author, FAULT, f"rank {rank} ended without a word, {how}")

    @classmethod
    def silent(cls, rank: int, author: int, how: str) -> "Note":
        return cls(
            SILENT, rank, author, FAULT, f"rank {rank} does not answer: {how}; where each of the others was is in logs/stacks_rank_*.txt"
        )

    @classmethod
    def stopped(cls, rank: int) -> "Note":
        """On request, before it could agree with the others."""
        return cls(STOPPED, rank, rank, STOPPED_ON_REQUEST, f"rank {rank} stopped on request")


def _is_echo(error: BaseException) -> bool:
    return any(
        isinstance(cause, ElsewhereError) or (isinstance(cause, RuntimeError | OSError) and _LOST_TOUCH.search(str(cause)))
        for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


class Board:
    """The notes of ranks that met at a `torch.distributed` store, and who else of them is on this machine."""

    def __init__(self, store: Any, rank: int, world_size: int) -> None:
        self._store, self.rank, self._world_size = store, rank, world_size
        self.leaving = threading.Event()
        """This process has begun to end."""
        self._untold = threading.Lock()
        store.set(f"present/{rank}", f"{_place()} {os.getpid()}")
        present = [text.decode().rsplit(" ", 1) for text in store.multi_get([f"present/{number}" for number in range(world_size)])]
        self._neighbours = {number: int(pid) for number, (place, pid) in enumerate(present) if place == _place() and number != rank}

    def pin(self, note: Note) -> None:
        self._store.append("notes", json.dumps(asdict(note)) + "\n")

    def notes(self) -> list[Note]:
        """All of them, the cause first. Raises RuntimeError where the store is gone, and rank 0 with it."""
        if not self._store.check(["notes"]):
            return []
        return sorted(Note(**json.loads(line)) for line in self._store.get("notes").decode().splitlines())

    def sign_off(self) -> None:
        """This rank has done all that it had to do: when its process ends, that is no failure."""
        self._store.set(f"done/{self.rank}", "")

    def look_around(self) -> list[Note]:
        """The notes, after pinning one for every rank on this machine that is dead, has left none and has not signed off."""
        notes = self.notes()
        known = {note.author for note in notes} | {note.rank for note in notes}
        for number, pid in self._neighbours.items():
            if number not in known and not _is_alive(pid) and not self._store.check([f"done/{number}"]):
                self.pin(Note.vanished(number, self.rank, f"killed or crashed (pid {pid} on {socket.gethostname()})"))
        return self.notes()

    def leave(self, own: Note | None) -> int:
        """Pin this rank's own note, if it has one, hear the others, tell the user of the cause where that is this rank's to tell, and
        return the exit code. A board that does not answer is not waited for."""
        self.leaving.set()
        if own:
            rank_log.logger.info(own.text)
        rank_log.dump_stacks(own.text if own else "another rank has failed")
        heard: list[Note] = []
        thread = threading.Thread(target=lambda: heard.append(self._hear(own)), daemon=True)
        thread.start()
        thread.join(_LEAVING_SECONDS)
        cause = heard[0] if heard else Note.silent(0, 1, self._how_it_is(0) or "the store that it holds gives no answer")
        if cause.author == self.rank:
            if self._untold.acquire(blocking=False):  # the main thread and the watch may come here together
                rank_log.tell_user(cause.text)
        else:
            rank_log.logger.info("this rank ends because of rank %d: %s", cause.rank, cause.text.splitlines()[-1])
        if self.rank == 0:
            time.sleep(_FAREWELL_SECONDS)
        return cause.code

    def _hear(self, own: Note | None) -> Note:
        try:
            return self._settle(own)
        except RuntimeError:  # the store is gone; nobody is left to agree with
            return own if own and own.kind < VANISHED else Note.vanished(0, 1, "and the run with it")

    def _settle(self, own: Note | None) -> Note:
        if own:
            self.pin(own)
        self._store.set(f"answer/{self.rank}", "")
        deadline = time.monotonic() + _ECHO_SECONDS
        while self.look_around()[0].kind == ECHO and time.monotonic() < deadline:
            time.sleep(_EVERY_SECONDS / 5)
        if self.notes()[0].kind == ECHO:
            self._call_the_roll()
        time.sleep(_SETTLING_SECONDS)
        return self.notes()[0]

    def _call_the_roll(self) -> None:
        """All have only lost touch, and each of them has a thread that answers here: name the first that did not."""
        answered = [number for number in range(self._world_size) if self._store.check([f"answer/{number}"])]
        missing = sorted(set(range(self._world_size)) - set(answered))
        if missing and self.rank == answered[0]:
            self.pin(Note.silent(missing[0], self.rank, self._how_it_is(missing[0]) or "it is frozen or cut off"))

    def _how_it_is(self, number: int) -> str:
        """Empty for a rank of another machine, of which nothing is known."""
        return how_it_is(self._neighbours[number]) if number in self._neighbours else ""


class Watch(threading.Thread):
    """Ends this process when another rank has failed and the main thread does not notice."""

    def __init__(self, board: Board) -> None:
        super().__init__(name="watch", daemon=True)
        self._board, self._over = board, threading.Event()

    def run(self) -> None:
        while not self._over.wait(_EVERY_SECONDS):
            try:
                failed = bool(self._board.look_around())
            except RuntimeError:
                failed = True
            if failed and not self._over.is_set():
                if not self._board.leaving.is_set():
                    end_process(self._board.leave(None))
                return

    def stop(self) -> None:
        """From now on the others may go when they like."""
        self._over.set()
        self.join(_LEAVING_SECONDS)  # it may wait for an answer of rank 0's for ever


def end_process(code: int) -> None:
    """Without Python's farewell, in which a process group with lost ranks can hang."""
    rank_log.flush()
    os._exit(code)


def _place() -> str:
    """The same for processes that see each other's process ids."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {os.getpid()}"  # alone


def how_it_is(pid: int) -> str:
    """What the system says of a process on this machine."""
    told = {"T": "stopped by a signal", "t": "stopped by a debugger", "D": "waiting for the disk or the network", "": "dead"}
    return f"it is {told.get(_state(pid), 'running')} (pid {pid} on {socket.gethostname()})"


def is_frozen(pid: int) -> bool:
    return _state(pid) in ("T", "t")


def _is_alive(pid: int) -> bool:
    return _state(pid) not in ("", "Z")


def _state(pid: int) -> str:
    """One letter, as `ps` shows it; nothing for a process that is not there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
