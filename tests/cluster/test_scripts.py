"""scripts/slurm without a Slurm: what they refuse, what they would do, and that shellcheck has nothing to say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launchers import REPOSITORY

SCRIPTS = REPOSITORY / "scripts" / "slurm"


@pytest.fixture
def call(tmp_path: Path):
    """`call("submit", ...)` in an empty folder, where Slurm is not installed."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "dirname", "cat", "sed", "env", "true", "readlink", "date", "mkdir", "mv", "rm", "cmp", "sleep"):
        (tools / tool).symlink_to(shutil.which(tool))
    site = tmp_path / "site.sh"
    site.write_text(f'source "{SCRIPTS}/site.sh"\nPYTHON={sys.executable}\nSBATCH_OPTIONS=(--account=mine "--comment=two words")\n')

    def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        environment = {"PATH": str(tools), "PRETRAIN_SITE": str(site), "HOME": str(tmp_path), "DS_ACCELERATOR": "cpu", **variables}
        return subprocess.run(
            [str(SCRIPTS / script), *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180
        )

    return run


NODES = ("--nodes", "2", "--gpus-per-node", "8")


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("submit", [], "there is nothing to train; give settings such as +experiment=bert_32k"),
        ("submit", [*NODES], "there is nothing to train; give settings such as +experiment=bert_32k"),
        ("submit", ["optimizer=came"], "the number of nodes is not given; add --nodes N"),
        ("submit", ["optimizer=came", "--nodes"], "--nodes has no value"),
        ("submit", ["optimizer=came", "-cd"], "-cd has no value"),
        ("submit", ["optimizer=came", "-N", "2"], "the GPUs of each node are not given; add --gpus-per-node N, or on CPUs --ntasks-per-node N"),
        ("submit", ["optimizer=came", "--nodes=two", "--gpus-per-node=8"], "--nodes two is not a number; give how many the run takes"),
        ("submit", ["optimizer=came", "--nodes=08", "--gpus-per-node=8"], "--nodes 08 is not a number"),
        ("submit", ["optimizer=came", "--nodes", "--ntasks-per-node", "1"], "--nodes --ntasks-per-node is not a number"),
        ("submit", ["optimizer=came", "-N2", "--gpus-per-node=a"], "the ranks of a node are a, which is not a number"),
        ("submit", ["optimizer=came", *NODES, "--ntasks-per-node=4"], "each node has 8 GPUs and 4 tasks; there is one per GPU"),
        ("submit", ["optimizer=came", *NODES, "--seeds", "a"], "--seeds a is not a list of seeds; write --seeds 1,2,3 or --seeds 1-3"),
        ("submit", ["optimizer=came", *NODES, "--time", "3"], "--time 3 is minutes, and Slurm asks for the checkpoint two to three before"),
        ("submit", ["optimizer=came", *NODES, "-t2:30"], "--time 2:30 is minutes"),
        ("submit", ["optimizer=came", *NODES, "--chdir=/tmp"], "--chdir=/tmp: the run folder, logs and relative paths are where submit is"),
        ("submit", ["launch.num_processes=4", *NODES], "launch.num_processes=4: the ranks are nodes x GPUs; leave it out"),
        ("submit", ["optimizer=came", *NODES, "--export", "ALL,A=1"], "'ALL,A=1' is neither a setting (key=value) nor an option; see submit"),
        ("submit", ["run.name='a b'", "train.micro_batch_size=16", *NODES, "--seeds=1", "--dry-run"], "run.name=a b: with --seeds only letters, digits, _, . and - ; give"),
        ("submit", ["demo", *NODES], "'demo' is neither a setting (key=value) nor an option; see submit --help"),
        ("submit", ["optimizer=came", *NODES], "there is no sbatch here; submit from a machine of the cluster, or add --dry-run"),
        ("submit", ["optimizer=came", *NODES, "--dry-run", "train.num_steps=none"], "train.num_steps"),
        ("submit", ["train.global_batch_size=7", *NODES, "--dry-run"], "train.global_batch_size=7 is not a multiple of"),
        ("pretrain.sbatch", ["+experiment=demo"], "this is a batch script: submit it with"),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_one_line(call, script: str, arguments: list[str], message: str) -> None:
    done = call(script, *arguments)
    assert done.returncode == 2, done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and message in line


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (None, "cannot be read; it says what is particular to your cluster"),
        (
            "PYTHON=nowhere/python\n",
            "there is no Python at nowhere/python; make an environment there (python3 -m venv), or give its path as PYTHON in",
        ),
        (
            "PYTHON=/bin/true-python\n",
            "/bin/true-python lacks what the harness needs; install it there (pip install -c scripts/constraints.txt -e .)",
        ),
    ],
)
def test_a_site_that_does_not_fit_is_named(call, tmp_path: Path, site: str | None, message: str) -> None:
    other, bare = tmp_path / "other.sh", tmp_path / "python"
    bare.write_text("#!/bin/sh\nexit 1\n")
    bare.chmod(0o755)
    if site:
        site, message = (text.replace("/bin/true-python", str(bare)) for text in (site, message))
        other.write_text(f'source "{SCRIPTS}/site.sh"\n{site}')
    done = call("submit", "optimizer=came", *NODES, "--dry-run", PRETRAIN_SITE=str(other))
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and message in line and str(other) in line


def test_a_dry_run_shows_the_plan_and_the_command(call, tmp_path: Path) -> None:
    done = call(
        "submit", "+experiment=bert_32k", "--nodes", "4", "--gpus-per-node=h100:8", "--time=24:00:00", "--dry-run", "--seeds", "1,2",
        "optimizer.lr=1e-4", "--exclusive", "data.paths=[a b/]",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ranks  32, ZeRO stage 1" in done.stdout
    (command,) = (line for line in done.stdout.splitlines() if line.startswith("would submit: "))
    assert command == (
        "would submit: sbatch --parsable --job-name=bert_32k --output=slurm/bert_32k-%A_%a.out --account=mine --comment=two\\ words "
        "--nodes 4 --gpus-per-node=h100:8 --time=24:00:00 --exclusive --array=1\\,2 --ntasks-per-node=8 "
        f"{SCRIPTS}/pretrain.sbatch +experiment=bert_32k optimizer.lr=1e-4 data.paths=\\[a\\ b/\\]"
    )
    assert not (tmp_path / "slurm").exists()


# A job, with stand-ins for Slurm and for the harness ----------------------------------------------------------------------------------

HARNESS = """
import os, signal, sys

if "--cfg" in sys.argv:
    print("composed")
    if name := os.environ.get("ASKED_WHILE_COMPOSING"):
        os.kill(os.getppid(), signal.Signals[f"SIG{name}"])
else:
    print("blocked:", *sorted(number.name for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])), sys.argv[1:])
"""
SRUN = """#!/bin/sh
echo srun >>calls
echo "srun $*"
[ -z "${ASKED_BEFORE_SRUN_LISTENS:-}" ] || { kill -s "$ASKED_BEFORE_SRUN_LISTENS" "$PPID" && exec sleep 60; }
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""
OLD_ENV = """#!/bin/sh
case $1 in --*) echo "env: unrecognized option '$1'" >&2 && exit 125 ;; esac
exec /usr/bin/env "$@"
"""
JOB = {"SLURM_JOB_ID": "7", "SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "n[1-2]"}


@pytest.fixture
def run_job(call, tmp_path: Path):
    """`run_job(NAME="value")` runs the batch script in this environment: what came of it, and the calls of srun and scontrol."""
    harness = tmp_path / "checkout" / "pretrain"
    harness.mkdir(parents=True)
    (harness / "__init__.py").touch()
    (harness / "__main__.py").write_text(HARNESS)
    for tool, text in (("srun", SRUN), ("scontrol", '#!/bin/sh\necho "scontrol $*" >>calls\n')):
        (tmp_path / "tools" / tool).write_text(text)
        (tmp_path / "tools" / tool).chmod(0o755)

    def run(**variables: str) -> tuple[subprocess.CompletedProcess, list[str]]:
        done = call("pretrain.sbatch", "optimizer=came", PRETRAIN_CHECKOUT=str(tmp_path / "checkout"), **JOB, **variables)
        calls = tmp_path / "calls"
        return done, calls.read_text().splitlines() if calls.exists() else []

    return run


@pytest.mark.parametrize("coreutils", ["8.30", "here"])
def test_a_rank_begins_with_its_signals_blocked(run_job, coreutils: str, tmp_path: Path) -> None:
    from_the_start = coreutils == "here" and not subprocess.run(["env", "--block-signal=USR1", "true"], capture_output=True).returncode
    if coreutils == "8.30":
        (tmp_path / "tools" / "env").unlink()
        (tmp_path / "tools" / "env").write_text(OLD_ENV)
        (tmp_path / "tools" / "env").chmod(0o755)
    done, calls = run_job()
    assert (" env --block-signal=USR1,USR2,TERM,INT " in done.stdout) == from_the_start
    assert (done.returncode, calls) == (0, ["srun"]), done.stderr
    assert "blocked: SIGINT SIGTERM SIGUSR1 SIGUSR2 ['--config', 'slurm/7.yaml']\n" in done.stdout
    assert (tmp_path / "slurm" / "7.yaml").read_text() == "composed\n"


@pytest.mark.parametrize(
    ("when", "signal", "calls", "code"),
    [
        ("ASKED_WHILE_COMPOSING", "USR1", ["scontrol requeue 7"], 0),
        ("ASKED_WHILE_COMPOSING", "TERM", [], 85),
        ("ASKED_BEFORE_SRUN_LISTENS", "USR1", ["srun", "scontrol requeue 7"], 0),
    ],
)
def test_a_request_before_there_are_ranks_is_not_lost(run_job, when: str, signal: str, calls: list[str], code: int) -> None:
    done, called = run_job(**{when: signal})
    assert (called, done.returncode) == (calls, code), done.stdout + done.stderr
    assert "blocked:" not in done.stdout and "error" not in done.stderr


def test_shellcheck_has_nothing_to_say() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed here; on Debian: apt install shellcheck")
    scripts = [path for path in [*(REPOSITORY / "scripts").rglob("*"), REPOSITORY / ".ci" / "run"] if path.is_file() and is_shell(path)]
    assert len(scripts) >= 7
    done = subprocess.run(
        ["shellcheck", "--external-sources", "--source-path=SCRIPTDIR", f"--source-path={REPOSITORY}", *scripts],
        cwd=REPOSITORY, env=os.environ, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def is_shell(path: Path) -> bool:
    with path.open("rb") as file:
        beginning = file.read(40)
    return beginning.startswith((b"#!/usr/bin/env bash", b"# shellcheck shell=bash"))
