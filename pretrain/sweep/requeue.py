"""A job of a sweep on Slurm whose run was stopped with a checkpoint, by its time limit or a preemption, is begun anew.

Slurm starts the same tasks again, and the run goes on from its checkpoint. A job that was cancelled stays so.
"""

import os
import re
import subprocess
import time

_LEAVING_SECONDS = 300.0
"""In which Slurm ends the tasks of a job that it has put back into its queue."""


def is_slurm_job() -> bool:
    """Whether submitit has started this process as a task of a Slurm job."""
    return os.environ.get("SUBMITIT_EXECUTOR") == "slurm" and "SLURM_JOB_ID" in os.environ


def begin_anew(most_restarts: int) -> None:
    """Put this job back into the queue and wait for Slurm to end its tasks; returns only where it is not begun anew.

    The first task alone asks for it, but all of them wait: a job that ends by itself is over.
    """
    job, rank = _job(), os.environ.get("SLURM_PROCID", "0")
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if restarts >= most_restarts:
        return print(f"not begun anew: stopped after {restarts} restarts (hydra.launcher.max_num_timeout); the same command goes on")
    if rank == "0":
        state = _state(job)
        if state != "RUNNING":
            return print(f"not begun anew: the job is {state or 'unknown to Slurm'}; the same command goes on")
        asked = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        if asked.returncode > 0:  # not where Slurm, which ends the job's tasks at once, has ended scontrol with them
            return print(f"not begun anew: {asked.stderr.strip()}; the same command goes on")
        print(f"back into Slurm's queue (restart {restarts + 1} of at most {most_restarts})")
    time.sleep(_LEAVING_SECONDS)  # Slurm ends this process


def _job() -> str:
    """As one of an array where it is one: the number of the array alone, which is also that of its last job, means all of them."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array else os.environ["SLURM_JOB_ID"]


def _state(job: str) -> str:
    """RUNNING, CANCELLED, ...: as Slurm has it now; empty where it does not say."""
    shown = subprocess.run(["scontrol", "show", "job", "--oneliner", job], capture_output=True, text=True)
    found = re.search(r"JobState=(\S+)", shown.stdout)
    return found[1] if found else ""
