"""What a launcher of Hydra calls where a run is to take place: in a worker on this machine, or in each task of a Slurm job.

The harness itself runs in a process below this one: nothing that submitit and Hydra have imported or installed here, signal handlers
among it, comes near DeepSpeed, and who is below hears every request from `stopping`.
"""

import atexit
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain import stopping
from pretrain.exit_codes import STOPPED_ON_REQUEST
from pretrain.sweep import child, requeue


@dataclass(frozen=True)
class Task:
    """Picklable; with the resolved configurations, so that nobody composes where it is called."""

    files: dict[str, str]
    """The whole configuration of each run by its name."""
    most_restarts: int
    """How often a Slurm job is begun anew after it was stopped."""

    def __call__(self, job: Any) -> int:
        """Run the one that Hydra's job names (`run=NAME`) and return its exit code, which a job of submitit also ends with."""
        _listen()
        code = child.run(Path(self.files[job["run"]]))
        if code == STOPPED_ON_REQUEST and requeue.is_slurm_job():
            requeue.begin_anew(self.most_restarts)
        if code and "SUBMITIT_EXECUTOR" in os.environ:
            atexit.register(os._exit, code)  # submitit hands the code on, and would end the job as one that went well
        return code


@functools.cache
def _listen() -> None:
    """Once per process: a worker may run several. Replaces the handlers of submitit, which would requeue before there is a checkpoint."""
    stopping.listen()
