"""Run a function on several ranks of a gloo process group on this machine, many cells per group."""

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp


def run_on_ranks(world_size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """What `function(*args)` returned on each rank. The function must be importable; an exception on a rank is raised here."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_worker, args=(world_size, _free_port(), function, args, folder), nprocs=world_size)
        return [torch.load(Path(folder, f"{rank}.pt"), weights_only=False) for rank in range(world_size)]


def _worker(rank: int, world_size: int, port: int, function: Callable[..., Any], args: tuple, folder: str) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        GLOO_SOCKET_IFNAME="lo",
        DS_ACCELERATOR="cpu",
    )
    torch.set_num_threads(1)
    from pretrain import distributed

    distributed.init(timeout_seconds=120)
    torch.save(function(*args), Path(folder, f"{rank}.pt"))
    distributed.barrier()
    distributed.shut_down()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
