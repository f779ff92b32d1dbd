"""Many runs from one command line: what they are, and what is refused before the first one starts."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pretrain.__main__ import main
from pretrain.config.expand import expand
from pretrain.config.serialise import from_file
from pretrain.errors import UserError
from pretrain.sweep import child, command, requeue
from pretrain.sweep.plugins import _silence, chosen_launcher
from pretrain.sweep.runs import compose_runs, write_files


def test_all_combinations_are_runs_the_last_value_changing_fastest():
    assert expand(["optimizer=came,adamw", "experiment=demo", "run.seed=1,2"]) == [
        ["optimizer=came", "+experiment=demo", "run.seed=1"],
        ["optimizer=came", "+experiment=demo", "run.seed=2"],
        ["optimizer=adamw", "+experiment=demo", "run.seed=1"],
        ["optimizer=adamw", "+experiment=demo", "run.seed=2"],
    ]


@pytest.mark.parametrize("twice", ["train.num_steps=3 +train.num_steps=4", "optimizer=came optimizer=adamw"])
def test_of_single_values_for_a_key_the_last_one_counts_as_in_a_single_run(twice: str):
    last = twice.split()[1].lstrip("+")
    assert expand([*twice.split(), "run.seed=1,2"]) == [[last, "run.seed=1"], [last, "run.seed=2"]]


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("run.seed=range(1,4)", ["1", "2", "3"]),
        ("run.seed=choice(7,8)", ["7", "8"]),
        ("model=glob(bert_*,exclude=*_large)", ["bert_base", "bert_mini", "bert_tiny"]),
        ("train.profile_steps=[1,2],[3,4]", ["[1,2]", "[3,4]"]),
        ("data.paths=[a,b]", ["[a,b]"]),
        ("run.name='a,b'", ["'a,b'"]),
        ("zero.extra.overlap_comm=true,false", ["True", "False"]),
    ],
)
def test_values_are_read_by_hydras_grammar(override: str, values: list[str]):
    assert [run[0].partition("=")[2] for run in expand([override])] == values


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("run.seed=1,2 run.seed=3", "run.seed is given twice; give all its values at once: run.seed=first,second"),
        ("run.seed=3 run.seed=1,2", "run.seed is given twice; give all its values at once"),
        ("optimizer=came optimizer=adamw,lamb", "optimizer is given twice; give all its values at once: optimizer=first,second"),
        ("optimizer.lr=interval(0,1)", "optimizer.lr=interval(0,1): an interval has no values to go through"),
        ("model=glob(x*)", "model=glob(x*) matches nothing; give one of bert_base"),
        ("run.seed=range(3,3)", "run.seed=range(3,3) holds no value"),
        ("run.seed=range(2000)", "this is a sweep of 2,000 runs, more than 1,000"),
        ("run.seed=1,(", "'run.seed=1,(' cannot be read"),
        ("optimizer=came,adam", "in the run optimizer=adam: optimizer=adam is not known; choose one of adafactor, adamw"),
        ("run.seed=1,2 optimizer.lr=1e-4,x", "in the run run.seed=1 optimizer.lr=x: optimizer.lr=x has the wrong type"),
        ("run.seed=1,1", "run.seed=1 is given twice; give each value once"),
        ("run.seed=1,2 optimizer.lr=1e-4,0.0001", "error: optimizer.lr=0.0001 is given twice"),
        ("run.seed=1,2 zero=stage1,stage2", "zero=stage1 and zero=stage2 change no number, so that both would be the run runs/demo-seed_1"),
        ("hydra.sweep.dir=x run.seed=1,2", "hydra.sweep.dir: Hydra's own settings have no effect here; the run folder is run.dir"),
        ("hydra/sweeper=basic run.seed=1,2", "hydra/sweeper: Hydra's own settings have no effect here"),
        (
            "train.global_batch_size=256,100 launch.num_processes=1",
            "in the run train.global_batch_size=100: train.global_batch_size=100 is",
        ),
        ("data=stdlib,text", "in the run data=text: data=text has no text to read"),
        ("run.seed=1,2 train.precision=fp32,fp16", "in the run run.seed=1 train.precision=fp16: train.precision=fp16 needs a GPU"),
        ("run.seed=1,2 hydra/launcher=nowhere", "hydra/launcher=nowhere is not installed; give one of basic"),
        ("run.seed=1,2 hydra.launcher.nodes=2", "hydra.launcher.nodes=2: the launcher basic has no settings"),
        ("run.seed=1,2 hydra/launcher=submitit_slurm hydra.launcher.node=2", "hydra.launcher.node is not a setting of submitit_slurm"),
        ("run.seed=1,2 hydra/launcher=submitit_slurm hydra.launcher.nodes=2,4", "hydra.launcher.nodes=2,4 gives several values"),
        (
            "run.seed=1 hydra/launcher=submitit_slurm hydra.launcher.timeout_min=abc",
            "hydra.launcher.timeout_min=abc has the wrong type; give a whole number",
        ),
        ("run.seed=1 hydra/launcher=submitit_slurm hydra.launcher.submitit_folder=x", "hydra.launcher.submitit_folder cannot be changed"),
        ("run.seed=1 hydra/launcher=submitit_local hydra.launcher.tasks_per_node=2", "submitit_local starts one process for a run"),
        (
            "run.seed=1,2 hydra/launcher=submitit_slurm hydra.launcher.tasks_per_node=3",
            "in the run run.seed=1: train.global_batch_size=256 is not a multiple of its 3 ranks",
        ),
        (
            "run.seed=1,2 hydra/launcher=submitit_slurm hydra.launcher.nodes=2 launch.num_processes=4",
            "in the run run.seed=1: launch.num_processes=4, but hydra.launcher starts 2 tasks",
        ),
    ],
)
def test_a_mistake_in_any_run_is_one_line_and_nothing_is_written(
    overrides: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setattr("pretrain.stopping.listen", lambda: None)
    assert main(["-m", *overrides.split()]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.startswith("error: ") and said.err.count("\n") == 1 and not said.out
    assert not list(tmp_path.iterdir())


def test_a_run_folder_of_other_settings_is_found_before_the_first_run_starts(tmp_path: Path, run_codes: dict[str, int]):
    """Of the second run of two."""
    folder = tmp_path / "runs" / "demo-seed_2"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(write_files(compose_runs(["run.seed=9"]))[1]["demo-seed_9"].read_text())
    with pytest.raises(UserError, match="in the run run.seed=2: the run in runs/demo-seed_2 was made with other settings"):
        command.sweep(["run.seed=1,2"])
    assert not run_codes


@pytest.fixture
def run_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The exit codes that runs in `tmp_path` are to have, by name, 0 where none is set; replaced by the order of the started ones."""
    codes: dict[str, int] = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setattr(child, "run", lambda file: codes.setdefault(from_file(str(file)).run.name, 0))
    return codes


def test_the_others_go_on_where_one_fails_and_the_table_says_so(run_codes: dict[str, int], capsys: pytest.CaptureFixture[str]):
    run_codes |= {"demo-seed_2": 7, "demo-seed_3": 2}
    assert command.sweep(["run.seed=1,2,3,4"]) == 7
    assert capsys.readouterr().out.splitlines() == [
        *(f"run {number} of 4: demo-seed_{number}" for number in (1, 2, 3, 4)),
        "sweep: 2 of 4 runs finished",
        "  demo-seed_1  finished",
        "  demo-seed_2  failed (exit code 7)",
        "  demo-seed_3  refused (exit code 2)",
        "  demo-seed_4  finished",
    ]


def test_a_request_to_stop_ends_the_sweep(run_codes: dict[str, int], capsys: pytest.CaptureFixture[str]):
    run_codes |= {"demo-seed_1": 1, "demo-seed_2": 85}
    assert command.sweep(["run.seed=1,2,3"]) == 85
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "  demo-seed_2  stopped, and the same command goes on",
        "  demo-seed_3  not started",
    ]
    assert "demo-seed_3" not in run_codes


def test_the_files_of_a_sweep_are_named_by_what_is_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    runs = compose_runs(["run.seed=1,2"])
    folder, files = write_files(runs)
    assert (folder, files) == write_files(compose_runs(["run.seed=2,1"])) != write_files(compose_runs(["run.seed=1,2", "tracker=none"]))
    assert folder.parent == tmp_path / "runs" / ".sweeps"
    assert [from_file(str(files[run.name])) for run in runs] == [run.config for run in runs]


def test_cfg_job_prints_every_configuration(capsys: pytest.CaptureFixture[str]):
    assert main(["-m", "run.seed=1,2", "--cfg", "job"]) == 0
    documents = capsys.readouterr().out.split("---\n")[1:]
    assert [document.partition("\n")[0] for document in documents] == ["# run.seed=1", "# run.seed=2"]
    assert "name: demo-seed_2" in documents[1]


def test_a_plugin_that_is_not_installed_has_its_mend(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hydra._internal.config_loader_impl.ConfigLoaderImpl.get_group_options", lambda *_: ["basic"])
    with pytest.raises(UserError, match=r"hydra/launcher=submitit_slurm is not installed; pip install 'came-pretrain\[slurm\]', or give"):
        chosen_launcher(["hydra/launcher=submitit_slurm"])


def test_sacct_is_asked_without_its_complaints(capfd: pytest.CaptureFixture[str]):
    watcher = SimpleNamespace(_make_command=lambda: ["sh", "-c", "echo JobID; echo 'Slurm accounting storage is disabled' >&2"])
    _silence(watcher)
    assert subprocess.check_output(watcher._make_command(), text=True) == "JobID\n"
    assert capfd.readouterr().err == ""


def test_a_launcher_without_m_is_refused(capsys: pytest.CaptureFixture[str], one_error_line: Callable[..., str]):
    assert main(["hydra/launcher=submitit_slurm", "--cfg", "job"]) == 2
    assert capsys.readouterr().err == "error: hydra/launcher=submitit_slurm: a launcher starts many runs; give -m too, or leave it out\n"


@pytest.mark.parametrize(("code", "waits"), [(0, True), (-15, True), (1, False)], ids=["done", "ended with the job", "refused"])
def test_a_job_that_goes_back_into_the_queue_waits_for_its_end(monkeypatch: pytest.MonkeyPatch, code: int, waits: bool):
    """Slurm may end the command that asks for it together with the job's tasks."""
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_RESTART_COUNT": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    waited: list[float] = []
    monkeypatch.setattr(requeue, "_state", lambda job: "RUNNING")
    monkeypatch.setattr(requeue.time, "sleep", waited.append)
    monkeypatch.setattr(requeue.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], code, "", ""))
    requeue.begin_anew(100)
    assert bool(waited) == waits
