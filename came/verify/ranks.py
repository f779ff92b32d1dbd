"""Run a function on several ranks of a process group on this machine, many cells per group."""

import os
import socket
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

_TIMEOUT = timedelta(seconds=120)


def run_on_ranks(world_size: int, function: Callable[..., Any], *args: Any, gpus: bool = False) -> list[Any]:
    """What `function(*args)` returned on each rank: on CPUs with gloo or, with `gpus`, on one GPU each with NCCL.

    The function must be importable; an exception on a rank is raised here.
    """
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_worker, args=(world_size, _free_port(), gpus, function, args, folder), nprocs=world_size)
        return [torch.load(Path(folder, f"{rank}.pt"), weights_only=False) for rank in range(world_size)]


def _worker(rank: int, world_size: int, port: int, gpus: bool, function: Callable[..., Any], args: tuple, folder: str) -> None:
    os.environ["TORCHDYNAMO_DISABLE"] = "1"  # DeepSpeed's Muon, imported for any optimizer, would load the compiler: a second or two
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    if gpus:
        torch.cuda.set_device(rank)
    else:
        os.environ.update(CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu", GLOO_SOCKET_IFNAME="lo")
        os.environ["LOCAL_SIZE"] = str(world_size)  # DeepSpeed otherwise starts numactl before each reduction of stage 3
        torch.set_num_threads(1)
    dist.init_process_group("nccl" if gpus else "gloo", timeout=_TIMEOUT)
    torch.save(function(*args), Path(folder, f"{rank}.pt"))
    dist.barrier()
    dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
