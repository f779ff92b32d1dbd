"""Hydra's launcher plugins (joblib, submitit_local, submitit_slurm, others): the runs of a sweep started elsewhere, or side by side.

A plugin composes a configuration for every job. What it gets to compose here is a stub, the run's name alone; the runs' own
configurations are resolved by then and travel with the `Task`.
"""

import importlib
import logging
import multiprocessing
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from pretrain import stopping
from pretrain.config.complaints import explain
from pretrain.config.location import configs_dir
from pretrain.errors import UserError
from pretrain.sweep.task import Task

BASIC = "basic"
_EXTRAS = {
    "submitit_slurm": "pip install 'came-pretrain[slurm]'",
    "submitit_local": "pip install 'came-pretrain[slurm]'",
    "joblib": "pip install hydra-joblib-launcher",
}
_MOST_RESTARTS = 100
_OWNED = ("submitit_folder", "_target_")
_QUIET = ("hydra/hydra_logging=none", "hydra/job_logging=none", "hydra.output_subdir=null", "hydra.job.chdir=false", "hydra.sweep.subdir=.")
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Launcher:
    """A plugin that was chosen and what it is asked for."""

    name: str
    overrides: tuple[str, ...]
    settings: DictConfig
    """hydra.launcher"""

    def sets(self, key: str) -> bool:
        """Whether the user has given hydra.launcher.`key`."""
        return any(override.lstrip("+").startswith(f"hydra.launcher.{key}=") for override in self.overrides)

    @property
    def is_submitit(self) -> bool:
        return self.name.startswith("submitit_")

    @property
    def is_slurm(self) -> bool:
        return self.name == "submitit_slurm"

    @property
    def tasks(self) -> int:
        """Processes that are started for one run."""
        return self.settings.nodes * self.settings.tasks_per_node if self.is_submitit else 1

    @property
    def gpus_per_node(self) -> int | None:
        """None: not asked for, or not in this way."""
        return self.settings.gpus_per_node if self.is_slurm else None


def chosen_launcher(overrides: list[str]) -> Launcher | None:
    """What hydra/launcher=NAME and hydra.launcher.KEY=VALUE ask for; None: the runs follow one another here.

    Raises UserError for a plugin that is not installed and for what it does not know.
    """
    names = [override.partition("=")[2] for override in overrides if override.lstrip("+").startswith("hydra/launcher=")]
    if len(names) > 1:
        raise UserError(f"{' and '.join(f'hydra/launcher={name}' for name in names)}: a sweep has one launcher; give one")
    name = names[0] if names else BASIC
    if name == BASIC:
        if len(overrides) > len(names):
            raise UserError(f"{overrides[-1]}: the launcher {BASIC} has no settings; give another, such as hydra/launcher=submitit_slurm")
        return None
    for override in overrides:
        if (key := override.partition("=")[0].rpartition(".")[2]) in _OWNED:
            raise UserError(f"hydra.launcher.{key} cannot be changed; the files of a sweep are in <run.dir>/.sweeps")
    with _hydra() as hydra:
        installed = hydra.config_loader.get_group_options("hydra/launcher")
        if name not in installed:
            mend = f"{_EXTRAS[name]}, or give one of" if name in _EXTRAS else "give one of"
            raise UserError(f"hydra/launcher={name} is not installed; {mend} {', '.join(installed)}")
        try:
            settings = _compose(hydra, overrides, RunMode.RUN).hydra.launcher
        except ConfigCompositionException as error:
            if isinstance(error.__cause__, ConfigAttributeError | ConfigKeyError):
                known = [key for key in _compose(hydra, [f"hydra/launcher={name}"], RunMode.RUN).hydra.launcher if key not in _OWNED]
                raise UserError(f"{error.__cause__.full_key} is not a setting of {name}; it has {', '.join(known)}") from error
            raise UserError(explain(error, overrides, None)) from error
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(explain(error, overrides, None)) from error
    launcher = Launcher(name, tuple(overrides), settings)
    if name == "submitit_local" and launcher.tasks > 1:
        raise UserError("submitit_local starts one process for a run, which starts its ranks; leave tasks_per_node and nodes out")
    return launcher


def run_by(launcher: Launcher, folder: Path, files: Mapping[str, Path]) -> dict[str, int | None]:
    """The exit codes by name, once all runs have ended; None: its job has left no code. The launcher's own files lie in `folder`."""
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "USR1"  # read as submitit is imported: what Slurm is to send before the time limit
    restarts = launcher.settings.max_num_timeout if launcher.sets("max_num_timeout") else _MOST_RESTARTS
    task = Task({name: str(file) for name, file in files.items()}, most_restarts=restarts)
    with _hydra() as hydra:
        owned = (*_QUIET, f"hydra.sweep.dir={_quoted(str(folder))}", f"hydra.job.name=sweep_{folder.name}")
        config = _compose(hydra, [*launcher.overrides, *owned], RunMode.MULTIRUN)
        if launcher.is_submitit:
            _prepare_submitit(config.hydra.launcher, folder / "submitit", launcher.is_slurm)
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks())
        plugin = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
        before = _job_numbers(folder / "submitit")
        with _jobs_told_of(folder / "submitit", list(files)) if launcher.is_submitit else stopping.passed_on(_to_workers):
            try:
                jobs = plugin.launch([[f"+run={name}"] for name in files], initial_job_idx=0)
            except Exception as error:  # a plugin's own: nothing was submitted, or a job has gone without a word
                reason = str(error).partition("\n")[0]
                if launcher.is_slurm and _job_numbers(folder / "submitit") == before:
                    raise UserError(f"nothing was submitted ({reason}); mend hydra.launcher.*, such as its partition or account") from error
                print(f"{launcher.name}: {reason}", file=sys.stderr)
                return dict.fromkeys(files)
    return {name: _code(job) for name, job in zip(files, jobs, strict=True)}


def _code(job: JobReturn) -> int | None:
    return job._return_value if isinstance(job._return_value, int) else None


def _to_workers(number: int) -> None:
    """A request, passed on to the processes in which a plugin works on this machine."""
    for worker in multiprocessing.active_children():
        if worker.pid:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, number)


# submitit ---------------------------------------------------------------------------------------------------------------------


def _prepare_submitit(settings: DictConfig, folder: Path, slurm: bool) -> None:
    submitit = importlib.import_module("submitit")  # which sets up its logging as it is imported
    logging.getLogger("submitit").setLevel(logging.ERROR)  # a cluster without accounting is no news
    settings.submitit_folder = f"{folder}/%j"
    if slurm:
        _silence(submitit.SlurmJob.watcher)
        settings.additional_parameters = {"requeue": True, **settings.additional_parameters}
        # Since Slurm 22.05 srun does not ask for the cores that sbatch was given for each task.
        cores = '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK'
        settings.setup = [cores, *(settings.setup or [])]


def _silence(watcher: Any) -> None:
    """`watcher` asks sacct again and again, which complains each time where Slurm keeps no accounts."""
    ask = watcher._make_command
    watcher._make_command = lambda: (command := ask()) and ["sh", "-c", 'exec "$@" 2> /dev/null', "sh", *command]


@contextmanager
def _jobs_told_of(folder: Path, names: list[str]) -> Iterator[None]:
    """While the block submits and waits, the jobs are named as soon as they have numbers. One who stops waiting leaves them running."""
    before, over = _job_numbers(folder), threading.Event()

    def tell() -> None:
        while not over.wait(_POLL_SECONDS):
            if new := sorted(_job_numbers(folder) - before):
                print(_submitted(new, names, folder), flush=True)
                return

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    stopping.before_leaving(lambda: print(f"\nno longer waiting; the jobs go on, their logs are in {folder}", flush=True))
    try:
        yield
    finally:
        over.set()
        thread.join()


def _submitted(numbers: list[str], names: list[str], folder: Path) -> str:
    if len(numbers) == 1 and len(names) > 1:  # an array
        numbers = [f"{numbers[0]}_{index}" for index in range(len(names))]
    lines = [f"submitted, logs in {folder} (Ctrl-C stops the waiting, not the jobs):"]
    return "\n".join(lines + [f"  {number}  {name}" for number, name in zip(numbers, names, strict=False)])


def _job_numbers(folder: Path) -> set[str]:
    """Of the jobs that have their files in `folder`; an array has one."""
    found = (re.fullmatch(r"(\d+)(_\d+)?", path.name) for path in (folder.iterdir() if folder.exists() else ()))
    return {match[1] for match in found if match}


# Hydra ------------------------------------------------------------------------------------------------------------------------


@contextmanager
def _hydra() -> Iterator[Hydra]:
    with initialize_config_dir(config_dir=str(configs_dir()), version_base="1.3"):
        yield GlobalHydra.instance().hydra


def _compose(hydra: Hydra, overrides: list[str], mode: RunMode) -> DictConfig:
    return hydra.compose_config(None, overrides, mode, with_log_configuration=False, from_shell=False)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
