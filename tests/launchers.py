"""The ways in which the ranks of a run are started: by the command itself, by torchrun, and as srun does it."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LAUNCHERS = ("spawn", "torchrun", "srun")


class Done:
    """A run that has ended: its exit code (the largest of the tasks', as srun's), what was on the terminal, when it ended."""

    def __init__(self, code: int, output: str, errors: str) -> None:
        self.code, self.output, self.errors, self.ended_at = code, output, errors, time.time()


def start(launcher: str, program: list[str], folder: Path, ranks: int = 2, timeout: float = 300, **variables: str) -> Done:
    """Run `python PROGRAM...` on `ranks` ranks in `folder`."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "DS_ACCELERATOR": "cpu"} | variables
    if launcher == "srun":
        return _srun(program, folder, ranks, environment, timeout)
    python = [sys.executable]
    if launcher == "torchrun":
        python += ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--standalone"]
    done = subprocess.run([*python, *program], cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)
    return Done(done.returncode, done.stdout, done.stderr)


def srun_variables(rank: int, ranks: int, **more: str) -> dict[str, str]:
    """What Slurm sets for a task of a step on this machine."""
    return {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
        "SLURM_NTASKS": str(ranks),
        "SLURM_STEP_NUM_TASKS": str(ranks),
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NODELIST": socket.gethostname(),
        "SLURM_JOB_NODELIST": socket.gethostname(),
    } | more


def _srun(program: list[str], folder: Path, ranks: int, environment: dict[str, str], timeout: float) -> Done:
    """One process per task, all on one terminal; nobody ends the others when one fails."""
    port = {"MASTER_PORT": str(free_port())}  # the one from SLURM_JOB_ID may be another test's
    with (folder / "stdout").open("w+") as output, (folder / "stderr").open("w+") as errors:
        tasks = [
            subprocess.Popen(
                [sys.executable, *program], cwd=folder, env=environment | srun_variables(rank, ranks, **port), stdout=output, stderr=errors
            )
            for rank in range(ranks)
        ]
        try:
            codes = [task.wait(timeout) for task in tasks]
        finally:
            for task in tasks:
                task.kill()
        output.seek(0)
        errors.seek(0)
        return Done(max(code if code >= 0 else 128 - code for code in codes), output.read(), errors.read())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
