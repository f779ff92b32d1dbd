"""Work on all cores: independent items, each done by one process, with bounded memory and an end to all when one fails."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from pretrain.errors import Unfinished
from pretrain.orphans import leave_with_parent

MOST_PROCESSES = 8
"""Each holds some 220 MB: all together stay below 2 GB, whatever the corpus. More cores are used by the threads within."""

_POLL_SECONDS = 0.2

_read_bytes: Any = None
"""In a worker: the counter of bytes that all workers have read."""


def for_each(function: Callable[..., None], items: Sequence[tuple], on_bytes: Callable[[int], None]) -> None:
    """Call `function(*item, on_bytes)` for every item, the order being nobody's concern.

    Args:
        function: importable by name; it may use threads of its own through the libraries' pools.
        items: arguments that can be pickled; the large ones first make the best use of the cores.
        on_bytes: called here with what the workers have given to theirs.

    Raises:
        Whatever the first failing call raised, after the others have been ended.
    """
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    num_processes = min(num_cores, len(items), MOST_PROCESSES)
    num_threads = min(num_cores, max(2, num_cores // num_processes))  # two, so that the last item does not run on one core alone
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    pool = ProcessPoolExecutor(num_processes, context, _begin, (counter, num_threads))
    told = 0
    try:
        with _ctrl_c_is_for_this_process():
            waiting = {pool.submit(_call, function, item) for item in items}
        while waiting:
            done, waiting = wait(waiting, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            read = counter.value  # once: it grows meanwhile
            on_bytes(read - told)
            told = read
            for future in done:
                future.result()
    except BrokenProcessPool as error:
        raise Unfinished("a process that read the corpus was killed (out of memory?); the same command goes on where it stopped") from error
    except BaseException:
        for process in list(pool._processes.values()):  # no public way until Python 3.14
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _ctrl_c_is_for_this_process() -> Iterator[None]:
    """Processes that are started in the block do not hear it: this one ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin(counter: Any, num_threads: int) -> None:
    global _read_bytes
    _read_bytes = counter
    os.environ["RAYON_NUM_THREADS"] = str(num_threads)  # the tokenizers library reads it
    leave_with_parent()


def _call(function: Callable[..., None], item: tuple) -> None:
    def on_bytes(num_bytes: int) -> None:
        with _read_bytes.get_lock():
            _read_bytes.value += num_bytes

    function(*item, on_bytes)
