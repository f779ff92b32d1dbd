"""Who started this process, and how many ranks there are: torchrun, srun, or the user alone. Plain Python: every command reads this.

A task of srun is given the names that torchrun uses (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), so that nothing else
knows of Slurm.
"""

import os
import re
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from pretrain.errors import UserError

_GPU_DEVICE_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
_RENDEZVOUS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_FIRST_SPECIAL_STEP = 0xFFFFFFF0
"""Slurm numbers the batch script, the interactive shell and its own steps from here on."""


@dataclass(frozen=True)
class World:
    """The ranks of a run and where they come from."""

    size: int
    rank: int | None
    """This process's own, where torchrun, srun or their like started it; None: it has to start the ranks."""
    num_gpus: int
    """That this process sees; 0: the run is on CPUs."""
    size_here: int
    """Ranks on this machine."""
    by_srun: bool = False
    """This process is a task of srun, whose exit code is the largest of the tasks'."""


def find_world(asked: int | None) -> World:
    """As torchrun or srun say, else `asked` ranks (`launch.num_processes`), else one per GPU, else two where there are two cores."""
    from_slurm = slurm_variables(os.environ)
    variables = os.environ | from_slurm
    if not all(name in variables for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR")):
        gpus = count_gpus()
        if asked and 0 < gpus < asked:
            raise UserError(f"launch.num_processes={asked} but this machine has {gpus} GPUs, one per rank; give {gpus} or less")
        size = asked or gpus or min(2, count_cores())
        return World(size, None, gpus, size)
    missing = [name for name in _RENDEZVOUS if name not in variables]
    if missing:
        raise UserError(
            f"RANK, WORLD_SIZE and MASTER_ADDR are set but not {' and '.join(missing)}; set all of them (torchrun does), or none"
        )
    size = int(variables["WORLD_SIZE"])
    if asked not in (None, size):
        raise UserError(f"launch.num_processes={asked} but the launcher started WORLD_SIZE={size}; leave launch.num_processes out")
    gpus, here = count_gpus(), int(variables.get("LOCAL_WORLD_SIZE", 0))
    if 0 < gpus < here:
        raise UserError(f"the launcher started {here} ranks on {socket.gethostname()}, which has {gpus} GPUs; start one per GPU")
    os.environ.update({name: variables[name] for name in _RENDEZVOUS})
    if gpus:
        # A task that srun gave a GPU of its own sees that one alone, as number 0; torch and DeepSpeed take LOCAL_RANK for the number.
        os.environ["LOCAL_RANK"] = str(int(variables["LOCAL_RANK"]) % gpus)
    return World(size, int(variables["RANK"]), gpus, here or slurm_tasks_here(os.environ) or size, bool(from_slurm))


def speaks() -> bool:
    """Whether this process tells the user of a mistake that all ranks make alike: one per machine, one of all the tasks of srun."""
    if _is_srun_task(os.environ):
        return os.environ["SLURM_PROCID"] == "0"
    return os.environ.get("LOCAL_RANK", "0") == "0"


def count_gpus() -> int:
    """GPUs that torch can use here; 0 where DS_ACCELERATOR=cpu asks for a run without."""
    if os.environ.get("DS_ACCELERATOR") == "cpu" or not any(map(os.path.exists, _GPU_DEVICE_FILES)):
        return 0  # importing torch to hear this would cost seconds
    import torch

    return torch.cuda.device_count()


def count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Slurm ------------------------------------------------------------------------------------------------------------------------


def slurm_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What torchrun would have set for this task of srun; nothing for any other process, or where torchrun has spoken already."""
    if "RANK" in environment or not _is_srun_task(environment):
        return {}
    found = {"RANK": environment["SLURM_PROCID"], "LOCAL_RANK": environment["SLURM_LOCALID"], "WORLD_SIZE": str(_num_tasks(environment))}
    found["MASTER_ADDR"] = environment.get("MASTER_ADDR") or _first_address(environment)
    found["MASTER_PORT"] = environment.get("MASTER_PORT") or str(15000 + int(environment.get("SLURM_JOB_ID", "0")) % 10000)
    return found


def slurm_tasks_here(environment: Mapping[str, str]) -> int:
    """Tasks of this step of srun on this machine; 0 where Slurm does not say. `2(x3),1` is two on each of three machines, then one."""
    counts: list[int] = []
    for tasks, repeated in re.findall(r"(\d+)(?:\(x(\d+)\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", "")):
        counts += [int(tasks)] * int(repeated or 1)
    node = int(environment.get("SLURM_NODEID", "0"))
    return counts[node] if node < len(counts) else 0


def first_host(hosts: str) -> str:
    """The first of Slurm's host list: `gpu[07-09,12],login` begins with `gpu07`."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", hosts)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0] if first else "")


def _is_srun_task(environment: Mapping[str, str]) -> bool:
    """Whether this is one of several tasks that srun started.

    A batch script has SLURM_PROCID too, and so has a shell under `srun --pty`: what is typed there starts its own ranks.
    """
    step = environment.get("SLURM_STEP_ID", "")
    return "SLURM_PROCID" in environment and step.isdigit() and int(step) < _FIRST_SPECIAL_STEP and _num_tasks(environment) > 1


def _num_tasks(environment: Mapping[str, str]) -> int:
    return int(environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or 1)


def _first_address(environment: Mapping[str, str]) -> str:
    """Where the first of the step's nodes can be reached; the name of a node need not be one that resolves."""
    hosts = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or ""
    host = first_host(hosts)
    if not host or (environment.get("SLURM_STEP_NUM_NODES") or environment.get("SLURM_NNODES")) == "1":
        return "127.0.0.1"
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        shown = subprocess.run(["scontrol", "show", "node", host], capture_output=True, text=True)
        address = re.search(r"NodeAddr=(\S+)", shown.stdout)
        if not address:
            raise UserError(f"the first node of the job, {host}, has no address that can be found; set MASTER_ADDR") from None
        return address[1]
    return host
