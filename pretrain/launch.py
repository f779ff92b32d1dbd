"""From a config to running ranks; the data is ready before any of them meets another in a process group."""

import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pretrain import network, rank_log, startup, stopping
from pretrain.batch_plan import BatchPlan
from pretrain.config.consistency import check_runnable
from pretrain.config.schema import Config
from pretrain.errors import ElsewhereError, UserError
from pretrain.exit_codes import DONE, USER_ERROR
from pretrain.failures import ECHO, Board, Note, Watch, end_process
from pretrain.run_folder import RunFolder
from pretrain.spawn import run_ranks
from pretrain.summary import summarise
from pretrain.world import World, count_cores, find_world, speaks

_LOCAL_ADDRESS = "127.0.0.1"
_LEAVING_SECONDS = 60.0
"""Rank 0, at whose store the others are, waits so long for the last of them to go, and they for its answer."""


def launch(config: Config) -> int:
    """Run `config` on as many ranks as it asks for, or print its plan; returns the exit code."""
    if config.run.dry_run:
        return _tell_plan(config, config.launch.num_processes or find_world(None).size)
    world = find_world(config.launch.num_processes)
    BatchPlan.of(config.train, world.size)
    check_runnable(config, on_gpu=world.num_gpus > 0)
    if world.num_gpus == 0:
        os.environ.update(_cpu_environment(world))
    if world.rank is not None and world.size > 1:
        return _launch_as_one_of_many(config, world, world.rank)
    prepared = _get_ready(config)
    startup.mark("prepared_data")
    if prepared is None:
        return DONE
    if world.size == 1:
        return _train(config, prepared)
    network.choose_interface(config.launch.interface)
    code = run_ranks(_train, (config, prepared), _local_environments(world.size))
    stopping.over()
    return code


def _tell_plan(config: Config, ranks: int) -> int:
    """What a run on so many ranks would be, which need not be here."""
    BatchPlan.of(config.train, ranks)
    if speaks():
        from pretrain.plan.of_run import print_plan

        print_plan(config, ranks)
    return DONE


def _launch_as_one_of_many(config: Config, world: World, rank: int) -> int:
    """As a rank that torchrun, srun or their like started: what has to be done once is done by rank 0."""
    with startup.imports():
        from pretrain import distributed
    try:
        store = distributed.meet(config.launch.rendezvous_timeout_seconds)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    rank_log.begin(rank)
    board = Board(store.clone(), rank, world.size)
    stopping.before_leaving(lambda: board.pin(Note.stopped(rank)))
    watch = Watch(board)
    watch.start()
    startup.mark("process_group")
    try:
        network.choose_interface(config.launch.interface, store)
        prepared = _from_rank_0(store, board, lambda: _get_ready(config))
        startup.mark("prepared_data")
        code = DONE
        if prepared is not None:
            distributed.init(config.launch.timeout_seconds, config.launch.rendezvous_timeout_seconds, store)
            code = _train(config, prepared)
        board.sign_off()
    except BaseException as error:
        note = Note.of(error, rank)
        if note.kind != ECHO:
            _tell_torchrun(error)
        end_process(board.leave(note))
    watch.stop()
    _leave_together(store, rank, world.size)
    # With --kill-on-bad-exit the first task of srun that leaves with another code than 0 ends the rest, and rank 0, whose code says how the
    # run ended, may still be at work on its last lines.
    return DONE if world.by_srun and rank else code


def _get_ready(config: Config) -> Path | None:
    """What one process does for all: the checks of the run folder and the prepared data; None where the run is already finished."""
    folder = RunFolder.of(config)
    _check_run_folder(folder.path)
    found = folder.inspect(config)
    if found.finished:
        print(f"the run in {folder.path} is already finished\n{summarise(folder)}")
        return None
    if config.run.init_from and not found.candidates:
        from pretrain import initial_weights

        initial_weights.check(config)
    from pretrain.data.prepare import prepare

    return prepare(config)


def _train(config: Config, prepared: Path) -> int:
    rank_log.begin(int(os.environ.get("RANK", "0")))
    with startup.imports():  # of all that a step needs, so that no rank waits in a collective for another's
        from pretrain import distributed
        from pretrain.engine import import_deepspeed
        from pretrain.model.build import architecture_of
        from pretrain.train import train

        architecture_of(config.objective)
        import_deepspeed()
    code = train(config, prepared)
    # Not after an exception: a rank that closes its connections makes the others fail too, and hides what went wrong first.
    distributed.shut_down()
    return code


# Ranks that somebody else started ---------------------------------------------------------------------------------------------


def _from_rank_0(store: Any, board: Board, function: Callable[[], Path | None]) -> Path | None:
    """What `function` returns on rank 0, on every rank. The others wait as long as it takes, or until a rank fails."""
    if board.rank == 0:
        path = function()
        store.set("prepared", str(path or ""))
        return path
    while not store.check(["prepared"]):
        if board.notes():
            raise ElsewhereError("another rank failed before the data was prepared")
        time.sleep(0.2)
    found = store.get("prepared").decode()
    return Path(found) if found else None


def _leave_together(store: Any, rank: int, size: int) -> None:
    """Rank 0, which holds the store, leaves last; one that does not answer is not waited for."""

    def leave() -> None:
        with suppress(RuntimeError):  # rank 0 is gone
            left = store.add("left", 1)
            while rank == 0 and left < size:
                time.sleep(0.05)
                left = store.add("left", 0)

    thread = threading.Thread(target=leave, daemon=True)
    thread.start()
    thread.join(_LEAVING_SECONDS)


def _tell_torchrun(error: BaseException) -> None:
    """Its summary then shows this error, and the first of several as the root cause."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)


# Ranks of our own -------------------------------------------------------------------------------------------------------------


def _check_run_folder(folder: Path) -> None:
    """Say now, not after an hour of preparing, that nothing could be written; leaves no trace."""
    try:
        existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists() or parent.is_symlink())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"the run folder {folder} cannot be written ({error.strerror}); give another run.dir") from error


def _cpu_environment(world: World) -> Mapping[str, str]:
    """What torch and DeepSpeed read when they are imported; threads stay as the user has set them."""
    wanted = {"LOCAL_SIZE": str(world.size_here)}  # else DeepSpeed starts numactl before each reduction
    if world.size > 1:
        wanted["OMP_NUM_THREADS"] = str(max(1, count_cores() // world.size_here))
    return {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""} | {name: value for name, value in wanted.items() if name not in os.environ}


def _local_environments(world_size: int) -> list[Mapping[str, str]]:
    common = {"WORLD_SIZE": str(world_size), "MASTER_ADDR": _LOCAL_ADDRESS, "MASTER_PORT": str(_free_port()), **startup.for_ranks()}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world_size)]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((_LOCAL_ADDRESS, 0))
        return listener.getsockname()[1]
