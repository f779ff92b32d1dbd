"""Whole runs of `python -m pretrain` whose ranks are forked from a process that has imported everything, so that many fit into a test;
and commands that need no ranks, likewise.

The ranks are started as torchrun or srun would start them: one process each, with RANK, WORLD_SIZE and the address of the store.
"""

import importlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pretrain.metrics import read_metrics
from pretrain.run_folder import RunFolder
from tests.launchers import free_port

SMALL = (
    "data=text data.paths=[corpus.txt] data.cache_dir=cache tokenizer.vocab_size=300 data.max_seq_length=16 run.dir=runs tracker=none "
    "model.num_layers=1 model.hidden_size=16 model.num_heads=2 model.dropout=0.1 train.global_batch_size=8 train.micro_batch_size=2 "
    "train.num_steps=8 train.log_every_steps=1 train.eval_samples=8 train.eval_every_steps=4 train.checkpoint_every_steps=2 "
    "checkpoint.keep_last=2 run.export=false"
).split()
"""A run of 8 steps with dropout, a checkpoint every second step, on the text of `write_corpus`."""


@dataclass(frozen=True)
class Ended:
    """What became of a run: each rank's exit code, and what they all said on the terminal."""

    codes: list[int]
    said: str


Fault = Callable[[], None]
"""Called in each rank before the command: replaces a function of the product by one that goes wrong at the right moment."""


class ForkedRuns:
    """Runs commands in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        multiprocessing.set_forkserver_preload(["tests.preloaded"])
        self._context = multiprocessing.get_context("forkserver")

    def run(
        self,
        *settings: str,
        ranks: int = 2,
        first_rank: int = 0,
        fault: Fault | None = None,
        kill: tuple[float, int | None] | None = None,
        timeout: float = 60,
        **variables: str,
    ) -> Ended:
        """`python -m pretrain SETTINGS` on `ranks` ranks, to its end; with `kill`=(seconds, rank) kill -9 of one, or of all (None), after
        some time. Raises TimeoutError, after killing it, where it takes longer.
        With `first_rank` and a WORLD_SIZE: some of its ranks, the others never come."""
        ports = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **variables}
        said = self.folder / "said"
        said.write_text("")
        processes = []
        for rank in range(first_rank, first_rank + ranks):
            environment = {**ports, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            leader = processes[0].pid if processes else 0
            process = self._context.Process(target=_rank, args=(settings, environment, self.folder, leader, fault))
            process.start()
            processes.append(process)
        deadline = time.monotonic() + timeout
        if kill is not None:
            seconds, victim = kill
            multiprocessing.connection.wait([process.sentinel for process in processes], seconds)
            for process in processes if victim is None else [processes[victim]]:
                process.kill()
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
        late = [process for process in processes if process.is_alive()]
        for process in late:
            process.kill()
            process.join()
        if late:
            raise TimeoutError(f"{settings} did not end in {timeout} s:\n{said.read_text()}")
        return Ended([process.exitcode for process in processes], said.read_text())


def forked_command(
    folder: Path, *arguments: str, module: str = "pretrain.__main__", timeout: float = 300, **variables: str
) -> subprocess.CompletedProcess:
    """What `python -m MODULE ARGUMENTS` does in `folder`; not for one that starts ranks of its own."""
    multiprocessing.set_forkserver_preload(["tests.preloaded"])
    said = [folder.with_name(f"{folder.name}.{stream}") for stream in ("stdout", "stderr")]
    for path in said:
        path.write_text("")
    command = module, arguments, variables, folder, said
    process = multiprocessing.get_context("forkserver").Process(target=_command, args=command)
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"{arguments} did not end in {timeout} s")
    return subprocess.CompletedProcess(command, process.exitcode, *(path.read_text() for path in said))


def told(folder: RunFolder) -> list[tuple]:
    """What a reader of a run's metrics sees of training and evaluation: kind, step and loss."""
    return [(line["kind"], line["step"], line["loss"]) for line in read_metrics(folder.metrics) if line["kind"] in ("train", "eval")]


def kill_run() -> None:
    """kill -9 of all ranks at once, from one of them."""
    os.killpg(0, signal.SIGKILL)


def ask_to_stop() -> None:
    """SIGTERM to all ranks at once."""
    os.killpg(0, signal.SIGTERM)


def _join_group(leader: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            return os.setpgid(0, leader)
        except PermissionError:  # the leader has not made it yet
            if time.monotonic() > deadline:
                raise


def _rank(settings: tuple[str, ...], environment: dict[str, str], folder: Path, leader: int, fault: Fault | None) -> None:
    _join_group(leader)
    _speak_into(folder / "said", folder / "said")
    os.chdir(folder)
    os.environ.update(environment, PYTHONFAULTHANDLER="")
    if fault is not None:
        fault()
    _leave_with("pretrain.__main__", settings)


def _command(module: str, arguments: tuple[str, ...], variables: dict[str, str], folder: Path, said: list[Path]) -> None:
    _speak_into(*said)
    os.chdir(folder)
    os.environ.update(variables)
    _leave_with(module, arguments)


def _speak_into(output: Path, errors: Path) -> None:
    for stream, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)


def _leave_with(module: str, arguments: tuple[str, ...]) -> None:
    code = importlib.import_module(module).main(list(arguments))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
