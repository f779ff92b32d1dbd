"""scripts/slurm on a real Slurm of two nodes: it trains, stops, goes on, fails and refuses as a user expects."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from came.checkpoint import load_masters
from pretrain.metrics import read_metrics
from pretrain.run_folder import RunFolder
from tests.cluster.slurm import Slurm
from tests.distributed.test_layout_invariance import write_corpus
from tests.forked_runs import SMALL, told
from tests.launchers import REPOSITORY

SCRIPTS = REPOSITORY / "scripts" / "slurm"
ON_TWO_NODES = ("--nodes=2", "--ntasks-per-node", "1", "--time=5")
RUN = (*SMALL, "train.num_steps=200", "train.checkpoint_every_steps=1000")
"""No checkpoint but those that are asked for, and the last."""
ENDLESS = (*SMALL, "train.num_steps=100000", "train.checkpoint_every_steps=0", "train.eval_every_steps=0")


class Jobs:
    """Submits from `folder`, in which the run folders are."""

    def __init__(self, slurm: Slurm, folder: Path, python: Path = Path(sys.executable)) -> None:
        self.slurm, self.folder = slurm, folder
        write_corpus(folder / "corpus.txt")
        (folder / "site.sh").write_text(f'source "{SCRIPTS}/site.sh"\nPYTHON={python}\nMAX_RESTARTS=1\n')

    def command(self, *command: str, **variables: str) -> subprocess.CompletedProcess:
        environment = os.environ | self.slurm.environment | {"PRETRAIN_SITE": str(self.folder / "site.sh")} | variables
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60)

    def submit(self, name: str, *arguments: str, **variables: str) -> str:
        """The job's number."""
        done = self.command(str(SCRIPTS / "submit"), *arguments, f"run.name={name}", **variables)
        assert done.returncode == 0, done.stderr
        (number,) = re.findall(r"^submitted job (\d+)$", done.stdout, re.MULTILINE)
        for shown in (f"squeue --job {number}", f"tail -F slurm/{name}-{number}", f"scancel --batch --signal=USR1 {number}"):
            assert shown in done.stdout
        return number

    def sbatch(self, *options: str, settings: list[str]) -> str:
        """The number of a job that is submitted by hand."""
        done = self.command("sbatch", "--parsable", *options, str(SCRIPTS / "pretrain.sbatch"), *settings)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def run_folder(self, name: str) -> RunFolder:
        return RunFolder(self.folder / "runs" / name)

    def output(self, name: str, number: str) -> str:
        """Of a job that was submitted, or by hand."""
        paths = (self.folder / folder / f"{name}-{number}.out" for folder in ("slurm", "."))
        return next((path.read_text() for path in paths if path.exists()), "")

    def wait_for_step(self, name: str, number: str, step: int) -> None:
        self.slurm.wait_for(lambda: f"step {step}/" in self.output(name, number), f"step {step} of {name}", 90)

    def wait_for_restart(self, number: str) -> None:
        self.slurm.wait_for(lambda: self.slurm.job(number)["Restarts"] == "1", f"restart of job {number}", 120)


@pytest.fixture(scope="module")
def jobs(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    return Jobs(slurm, tmp_path_factory.mktemp("jobs"))


@pytest.fixture(scope="module")
def undisturbed(jobs: Jobs) -> RunFolder:
    number = jobs.submit("undisturbed", *RUN, *ON_TWO_NODES)
    ended = jobs.slurm.wait_for_end(number)
    assert (ended["JobState"], ended["ExitCode"]) == ("COMPLETED", "0:0"), jobs.output("undisturbed", number)
    return jobs.run_folder("undisturbed")


def test_two_nodes_train(jobs: Jobs, undisturbed: RunFolder) -> None:
    assert [line["step"] for line in read_metrics(undisturbed.metrics) if line["kind"] == "end"] == [200]
    (start,) = (line for line in read_metrics(undisturbed.metrics) if line["kind"] == "start")
    assert start["plan"]["ranks"] == 2


def test_asked_for_it_stops_with_a_checkpoint_goes_back_into_the_queue_and_ends_with_the_same_weights(
    jobs: Jobs, undisturbed: RunFolder
) -> None:
    number = jobs.submit("disturbed", *RUN, *ON_TWO_NODES)
    jobs.wait_for_step("disturbed", number, 5)
    folder = jobs.run_folder("disturbed")
    for name in ("QUIT", "USR2"):  # where it is; a checkpoint, and on
        jobs.slurm.call("scancel", f"--signal={name}", number)
    jobs.slurm.wait_for(lambda: folder.latest_checkpoint() is not None, "checkpoint on request")
    jobs.slurm.call("scancel", "--batch", "--signal=USR1", number)
    jobs.wait_for_restart(number)
    assert "pretrain/train.py" in (folder.logs / "stacks_rank_1.txt").read_text()
    stopped_at = int(folder.latest_checkpoint().name[5:])
    assert 5 <= stopped_at < 200
    jobs.slurm.hasten(number)
    ended = jobs.slurm.wait_for_end(number)
    output = jobs.output("disturbed", number)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("COMPLETED", "0:0", "1"), output
    assert "restart 0, on n[1-2]" in output and "restart 1, on n[1-2]" in output  # appended
    assert f"going on from step {stopped_at} of" in output and "Traceback" not in output
    found, wanted = load_masters(folder.checkpoint(200)), load_masters(undisturbed.checkpoint(200))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert told(folder) == told(undisturbed)


@pytest.mark.soak
def test_a_time_limit_does_the_same(jobs: Jobs) -> None:
    number = jobs.submit("long", *ENDLESS, "--nodes=2", "--ntasks-per-node=1", "--time=2", "--signal=B:USR1@65")
    jobs.wait_for_restart(number)
    assert int(jobs.run_folder("long").latest_checkpoint().name[5:]) > 0
    assert "the ranks ended with exit code 85" in jobs.output("long", number)
    jobs.slurm.call("scancel", number)


def test_a_killed_rank_fails_the_job_within_seconds(jobs: Jobs) -> None:
    number = jobs.submit("killed", *ENDLESS, *ON_TWO_NODES)
    jobs.wait_for_step("killed", number, 3)
    os.kill(rank_of(number, "1"), signal.SIGKILL)
    killed_at = time.monotonic()
    ended = jobs.slurm.wait_for_end(number, 15)
    assert ended["JobState"] == "FAILED" and ended["Restarts"] == "0"
    assert time.monotonic() - killed_at < 15
    assert "Traceback" not in jobs.output("killed", number)


def rank_of(job: str, rank: str) -> int:
    """The process id of a rank that is in `job`'s own step of srun."""
    wanted = {f"SLURM_JOB_ID={job}", f"SLURM_PROCID={rank}", "SLURM_STEP_ID=0"}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().decode().split("\0")
            if wanted <= set(variables) and b"--config" in (folder / "cmdline").read_bytes() and "python" in os.readlink(folder / "exe"):
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError(f"rank {rank} of job {job} is not there")


# The same scripts around a Python that only waits -----------------------------------------------------------------------------------

WAITING = """#!{python}
import os, signal, sys

if sys.argv[1] == "-PSc":
    program, sys.executable, sys.argv = sys.argv[2], sys.argv[0], sys.argv[2:]
    exec(program)
elif "--cfg" in sys.argv:
    print("composed")
else:
    print("rank", os.environ["SLURM_PROCID"], "waits", flush=True)
    signal.sigwait({{signal.SIGUSR1, signal.SIGTERM}})
    sys.exit(85 if os.environ["SLURM_PROCID"] == "0" else 0)
"""


@pytest.fixture(scope="module")
def stand_ins(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    folder = tmp_path_factory.mktemp("stand_ins")
    python = folder / "python"
    python.write_text(WAITING.format(python=sys.executable))
    python.chmod(0o755)
    return Jobs(slurm, folder, python)


def waits(jobs: Jobs, number: str, times: int = 1) -> None:
    jobs.slurm.wait_for(lambda: jobs.output("pretrain", number).count("rank 1 waits") == times, f"ranks of job {number}")


def test_what_is_cancelled_does_not_come_back(stand_ins: Jobs) -> None:
    number = stand_ins.sbatch(*ON_TWO_NODES, settings=["optimizer=came"])
    waits(stand_ins, number)
    stand_ins.slurm.call("scancel", number)
    ended = stand_ins.slurm.wait_for_end(number)
    assert (ended["JobState"], ended["Restarts"]) == ("CANCELLED", "0")
    assert "the ranks ended with exit code 85" in stand_ins.output("pretrain", number)


def test_asked_without_its_batch_script_a_job_ends_after_its_checkpoint(stand_ins: Jobs) -> None:
    number = stand_ins.sbatch(*ON_TWO_NODES, settings=["optimizer=came"])
    waits(stand_ins, number)
    stand_ins.slurm.call("scancel", "--signal=USR1", number)
    ended = stand_ins.slurm.wait_for_end(number)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "85:0", "0")


def test_before_a_time_limit_a_job_goes_back_into_the_queue_and_restarts_have_a_bound(stand_ins: Jobs) -> None:
    number = stand_ins.sbatch("--nodes=2", "--ntasks-per-node=1", "--time=1", "--signal=B:USR1@50", settings=["optimizer=came"])
    waits(stand_ins, number)
    stand_ins.wait_for_restart(number)  # Slurm looks every 30 seconds
    assert "the ranks ended with exit code 85" in stand_ins.output("pretrain", number)
    stand_ins.slurm.hasten(number)
    waits(stand_ins, number, times=2)
    stand_ins.slurm.call("scancel", "--batch", "--signal=USR1", number)
    ended = stand_ins.slurm.wait_for_end(number)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "2:0", "1")
    assert "error: the job has been restarted 1 times (MAX_RESTARTS in " in stand_ins.output("pretrain", number)


def test_an_array_has_a_run_for_each_seed_and_one_of_them_goes_back_into_the_queue_alone(stand_ins: Jobs) -> None:
    log = "slurm-%A_%a.out"
    number = stand_ins.sbatch("--array=3,8", "--nodes=1", "--ntasks-per-node=2", f"--output={log}", settings=["optimizer=came"])
    tasks = {seed: f"{number}_{seed}" for seed in ("3", "8")}
    outputs = {seed: stand_ins.folder / f"slurm-{task}.out" for seed, task in tasks.items()}
    for seed, path in outputs.items():
        stand_ins.slurm.wait_for(lambda: path.exists() and "rank 1 waits" in path.read_text(), f"run with seed {seed}")
        assert f"optimizer=came run.seed={seed} run.name=composed-seed_{seed}\n" in path.read_text()
    stand_ins.slurm.call("scancel", "--batch", "--signal=USR1", tasks["8"])
    stand_ins.slurm.wait_for(lambda: stand_ins.slurm.job(tasks["8"])["Restarts"] == "1", "restart")
    assert (stand_ins.slurm.job(tasks["3"])["JobState"], stand_ins.slurm.job(tasks["3"])["Restarts"]) == ("RUNNING", "0")
    stand_ins.slurm.call("scancel", number)


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        (["--nodes=2"], ["optimizer=came"], "the ranks on each node are not given; add --ntasks-per-node=N, one per GPU"),
        (["--nodes=2", "--ntasks-per-node=1"], [], "there is nothing to train; give settings behind the script's name"),
    ],
)
def test_sbatch_alone_says_what_it_lacks(stand_ins: Jobs, options: list[str], settings: list[str], message: str) -> None:
    number = stand_ins.sbatch(*options, settings=settings)
    ended = stand_ins.slurm.wait_for_end(number)
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "2:0")
    assert stand_ins.output("pretrain", number).startswith(f"error: {message}")
