"""Runs that are composed and named: all checked, then all started, here or by a launcher."""

from pretrain.errors import UserError
from pretrain.exit_codes import DONE
from pretrain.run_folder import RunFolder
from pretrain.sweep.local import run_one_by_one
from pretrain.sweep.plugins import Launcher, run_by
from pretrain.sweep.runs import Run, write_files
from pretrain.world import find_world


def check_all(runs: list[Run], launcher: Launcher | None) -> None:
    """What can be known of them before the first one starts. Raises UserError; changes nothing."""
    for run in runs:
        with run.blamed():
            world_size, on_gpu = _world(run, launcher)
        run.check(world_size, on_gpu)


def start_all(runs: list[Run], launcher: Launcher | None) -> dict[str, int | None]:
    """The exit codes by name of the runs that were started, once all have ended; None: its job has left none and its run no end."""
    folder, files = write_files(runs)
    return run_one_by_one(files) if launcher is None else _where_known(runs, run_by(launcher, folder, files))


def _world(run: Run, launcher: Launcher | None) -> tuple[int | None, bool]:
    """(ranks of the run, None where that is not known here; whether it may be on a GPU)."""
    asked = run.config.launch.num_processes
    if launcher is None or not launcher.is_slurm:
        world = find_world(asked)
        if world.rank is not None:
            raise UserError("this command starts runs, and torchrun or srun has started it as a rank of one; give it by itself")
        return world.size, world.num_gpus > 0
    if launcher.tasks > 1:
        if asked not in (None, launcher.tasks):
            raise UserError(
                f"launch.num_processes={asked}, but hydra.launcher starts {launcher.tasks} tasks; leave launch.num_processes out"
            )
        return launcher.tasks, True
    return asked or launcher.gpus_per_node, True


def _where_known(runs: list[Run], codes: dict[str, int | None]) -> dict[str, int | None]:
    """A job that has left no exit code may still have finished its run."""

    def of_folder(run: Run) -> int | None:
        return DONE if RunFolder.of(run.config).inspect(run.config).finished else None

    return {run.name: of_folder(run) if codes[run.name] is None else codes[run.name] for run in runs}
