"""`python -m pretrain -m`: from one command line with several values to the exit codes of its runs."""

from pretrain.config.compose import names_launcher
from pretrain.config.serialise import to_yaml
from pretrain.errors import UserError
from pretrain.exit_codes import DONE, FAULT, STOPPED_ON_REQUEST, USER_ERROR
from pretrain.run_folder import RunFolder
from pretrain.sweep.local import run_one_by_one
from pretrain.sweep.plugins import Launcher, chosen_launcher, run_by
from pretrain.sweep.runs import Run, compose_runs, write_files
from pretrain.world import find_world

_VERDICTS = {DONE: "finished", STOPPED_ON_REQUEST: "stopped, and the same command goes on", USER_ERROR: "refused (exit code 2)"}


def sweep(overrides: list[str], config_dir: str | None = None) -> int:
    """Run all of them, once every one has been checked; 0, 85 where one was stopped, or the exit code of the first that failed."""
    launcher = chosen_launcher([override for override in overrides if names_launcher(override)])
    runs = compose_runs(_settings(overrides), config_dir)
    for run in runs:
        with run.blamed():
            world_size, on_gpu = _world(run, launcher)
        run.check(world_size, on_gpu)
    folder, files = write_files(runs)
    codes: dict[str, int | None] = {}
    if launcher is None:
        codes |= run_one_by_one(files)
    else:
        codes |= _where_known(runs, run_by(launcher, folder, files))
    print(_table(runs, codes), flush=True)
    if STOPPED_ON_REQUEST in codes.values():
        return STOPPED_ON_REQUEST
    return next((FAULT if code is None else code for code in codes.values() if code != DONE), DONE)


def print_configurations(overrides: list[str], config_dir: str | None = None) -> None:
    """All of them, one YAML document each."""
    for run in compose_runs(_settings(overrides), config_dir):
        print(f"---\n# {' '.join(run.differences) or run.name}\n{to_yaml(run.config)}", end="")


def _settings(overrides: list[str]) -> list[str]:
    return [override for override in overrides if not names_launcher(override)]


def _world(run: Run, launcher: Launcher | None) -> tuple[int | None, bool]:
    """(ranks of the run, None where that is not known here; whether it may be on a GPU)."""
    asked = run.config.launch.num_processes
    if launcher is None or not launcher.is_slurm:
        world = find_world(asked)
        if world.rank is not None:
            raise UserError("-m starts runs, and torchrun or srun has started this as a rank of one; give the command by itself")
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


def _table(runs: list[Run], codes: dict[str, int | None]) -> str:
    def verdict(name: str) -> str:
        if name not in codes:
            return "not started"
        code = codes[name]
        return "not finished; its job's logs say why" if code is None else _VERDICTS.get(code, f"failed (exit code {code})")

    finished = sum(code == DONE for code in codes.values())
    width = max(len(run.name) for run in runs)
    return "\n".join([f"sweep: {finished} of {len(runs)} runs finished", *(f"  {run.name:<{width}}  {verdict(run.name)}" for run in runs)])
