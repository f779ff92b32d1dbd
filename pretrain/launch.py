"""From a config to running ranks: how many, where, with which environment; the data is ready before any of them meets another."""

import os
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pretrain.batch_plan import BatchPlan
from pretrain.config.consistency import check_runnable
from pretrain.config.schema import Config
from pretrain.errors import UserError
from pretrain.run_folder import RunFolder
from pretrain.spawn import run_ranks
from pretrain.summary import summarise

_GPU_DEVICE_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
_RENDEZVOUS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """The ranks of a run and where they come from."""

    size: int
    joined: bool
    """This process is one of them, started by torchrun or its like."""
    num_gpus: int
    """On this machine; 0: the run is on CPUs."""


def launch(config: Config) -> int:
    """Run `config` on as many ranks as it asks for, or print its plan; returns the exit code."""
    world = find_world(config)
    BatchPlan.make(config.train.global_batch_size, config.train.micro_batch_size, world.size)
    if config.run.dry_run:
        from pretrain.plan import print_plan

        print_plan(config, world.size)
        return 0
    _check_devices(config, world)
    check_runnable(config, on_gpu=world.num_gpus > 0)
    folder = RunFolder.of(config)
    _check_run_folder(folder.path)
    if folder.inspect(config).finished:
        if os.environ.get("RANK", "0") == "0":
            print(f"the run in {folder.path} is already finished\n{summarise(folder)}")
        return 0
    if world.num_gpus == 0:
        os.environ.update(_cpu_environment(world))
    from pretrain.data.prepare import prepare

    prepared = prepare(config)
    if world.joined or world.size == 1:
        return _train(config, prepared)
    return run_ranks(_train, (config, prepared), _local_environments(world.size))


def _train(config: Config, prepared: Path) -> int:
    from pretrain.train import train

    return train(config, prepared)


def find_world(config: Config) -> World:
    """As torchrun says, else `launch.num_processes`, else one rank per GPU, else two ranks where there are two cores."""
    asked = config.launch.num_processes
    if all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR")):
        missing = [name for name in _RENDEZVOUS if name not in os.environ]
        if missing:
            raise UserError(
                f"RANK, WORLD_SIZE and MASTER_ADDR are set but not {' and '.join(missing)}; set all of them (torchrun does), or none"
            )
        size = int(os.environ["WORLD_SIZE"])
        if asked not in (None, size):
            raise UserError(f"launch.num_processes={asked} but the launcher started WORLD_SIZE={size}; leave launch.num_processes out")
        return World(size, True, count_gpus())
    gpus = count_gpus()
    return World(asked or gpus or min(2, _cores()), False, gpus)


def count_gpus() -> int:
    """GPUs that torch can use here; 0 where DS_ACCELERATOR=cpu asks for a run without."""
    if os.environ.get("DS_ACCELERATOR") == "cpu" or not any(map(os.path.exists, _GPU_DEVICE_FILES)):
        return 0  # importing torch to hear this would cost seconds
    import torch

    return torch.cuda.device_count()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_devices(config: Config, world: World) -> None:
    if not world.joined and 0 < world.num_gpus < world.size:
        raise UserError(
            f"launch.num_processes={world.size} but this machine has {world.num_gpus} GPUs, one per rank; give {world.num_gpus} or less"
        )


def _check_run_folder(folder: Path) -> None:
    """Say now, not after an hour of preparing, that nothing could be written; leaves no trace."""
    try:
        existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists() or parent.is_symlink())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"the run folder {folder} cannot be written ({error.strerror}); give another run.dir") from error


def _cpu_environment(world: World) -> Mapping[str, str]:
    """What torch and DeepSpeed read when they are imported; threads and network interface stay where the user has set them."""
    wanted = {}
    if world.size > 1:
        wanted["OMP_NUM_THREADS"] = str(max(1, _cores() // world.size))
        if os.path.exists("/sys/class/net/lo") and os.environ.get("MASTER_ADDR", "localhost") in ("localhost", "127.0.0.1"):
            wanted["GLOO_SOCKET_IFNAME"] = "lo"
    return {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""} | {name: value for name, value in wanted.items() if name not in os.environ}


def _local_environments(world_size: int) -> list[Mapping[str, str]]:
    common = {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world_size)]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
