"""`python -m pretrain -m`: from one command line with several values to the exit codes of its runs."""

from pretrain.config.compose import names_launcher
from pretrain.config.serialise import to_yaml
from pretrain.exit_codes import DONE, FAULT, STOPPED_ON_REQUEST, USER_ERROR
from pretrain.sweep.plugins import chosen_launcher
from pretrain.sweep.runs import Run, compose_runs
from pretrain.sweep.starting import check_all, start_all

_VERDICTS = {DONE: "finished", STOPPED_ON_REQUEST: "stopped, and the same command goes on", USER_ERROR: "refused (exit code 2)"}


def sweep(overrides: list[str], config_dir: str | None = None) -> int:
    """Run all of them, once every one has been checked; 0, 85 where one was stopped, or the exit code of the first that failed."""
    launcher = chosen_launcher([override for override in overrides if names_launcher(override)])
    runs = compose_runs(_settings(overrides), config_dir)
    check_all(runs, launcher)
    codes = start_all(runs, launcher)
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


def _table(runs: list[Run], codes: dict[str, int | None]) -> str:
    def verdict(name: str) -> str:
        if name not in codes:
            return "not started"
        code = codes[name]
        return "not finished; its job's logs say why" if code is None else _VERDICTS.get(code, f"failed (exit code {code})")

    finished = sum(code == DONE for code in codes.values())
    width = max(len(run.name) for run in runs)
    return "\n".join([f"sweep: {finished} of {len(runs)} runs finished", *(f"  {run.name:<{width}}  {verdict(run.name)}" for run in runs)])
