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
RUN = (*SMALL, "train.num_steps=60", "train.checkpoint_every_steps=1000")
"""No checkpoint but those that are asked for, and the last."""
ENDLESS = (*SMALL, "train.num_steps=100000", "train.checkpoint_every_steps=0", "train.eval_every_steps=0")


class Jobs:
    """Submits from `folder`, in which the run folders are."""

    def __init__(self, slurm: Slurm, folder: Path) -> None:
        self.slurm, self.folder = slurm, folder
        write_corpus(folder / "corpus.txt")
        (folder / "site.sh").write_text(f'source "{SCRIPTS}/site.sh"\nPYTHON={sys.executable}\nMAX_RESTARTS=${{MAX_RESTARTS_HERE:-2}}\n')

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

    def run_folder(self, name: str) -> RunFolder:
        return RunFolder(self.folder / "runs" / name)

    def output(self, name: str, number: str) -> str:
        path = self.folder / "slurm" / f"{name}-{number}.out"
        return path.read_text() if path.exists() else ""

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
    assert [line["step"] for line in read_metrics(undisturbed.metrics) if line["kind"] == "end"] == [60]
    (start,) = (line for line in read_metrics(undisturbed.metrics) if line["kind"] == "start")
    assert start["plan"]["ranks"] == 2


def test_asked_for_it_stops_with_a_checkpoint_goes_back_into_the_queue_and_ends_with_the_same_weights(
    jobs: Jobs, undisturbed: RunFolder
) -> None:
    number = jobs.submit("disturbed", *RUN, *ON_TWO_NODES)
    jobs.wait_for_step("disturbed", number, 5)
    jobs.slurm.call("scancel", "--batch", "--signal=USR1", number)
    jobs.wait_for_restart(number)
    folder = jobs.run_folder("disturbed")
    stopped_at = int(folder.latest_checkpoint().name[5:])
    assert 5 <= stopped_at < 60
    jobs.slurm.hasten(number)
    ended = jobs.slurm.wait_for_end(number)
    output = jobs.output("disturbed", number)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("COMPLETED", "0:0", "1"), output
    assert "restart 0, on n[1-2]" in output and "restart 1, on n[1-2]" in output  # appended
    assert f"going on from step {stopped_at} of" in output and "Traceback" not in output
    found, wanted = load_masters(folder.checkpoint(60)), load_masters(undisturbed.checkpoint(60))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert told(folder) == told(undisturbed)


def test_a_time_limit_does_the_same_but_a_bound_on_restarts_ends_it(jobs: Jobs) -> None:
    number = jobs.submit("long", *ENDLESS, "--nodes=2", "--ntasks-per-node=1", "--time=1", "--signal=B:USR1@50", MAX_RESTARTS_HERE="1")
    jobs.wait_for_restart(number)
    assert int(jobs.run_folder("long").latest_checkpoint().name[5:]) > 0
    assert "the ranks ended with exit code 85" in jobs.output("long", number)
    jobs.slurm.hasten(number)
    jobs.slurm.wait_for(lambda: jobs.output("long", number).count("first step begun") == 2, "second beginning")
    jobs.slurm.call("scancel", "--batch", "--signal=USR1", number)
    ended = jobs.slurm.wait_for_end(number)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "2:0", "1")
    assert "error: the job has been restarted 1 times (MAX_RESTARTS in site.sh); its checkpoint is whole" in jobs.output("long", number)


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


def test_what_is_cancelled_does_not_come_back(jobs: Jobs) -> None:
    number = jobs.submit("cancelled", *ENDLESS, *ON_TWO_NODES)
    jobs.wait_for_step("cancelled", number, 3)
    jobs.slurm.call("scancel", number)
    ended = jobs.slurm.wait_for_end(number)
    assert (ended["JobState"], ended["Restarts"]) == ("CANCELLED", "0")
    assert jobs.run_folder("cancelled").latest_checkpoint() is not None


def test_an_array_of_seeds_has_a_run_for_each(jobs: Jobs) -> None:
    few = ("train.num_steps=2", "launch.num_processes=1")
    number = jobs.submit("seeds", *SMALL, *few, "--seeds", "1,2", "--nodes=1", "--ntasks-per-node=1")
    for seed in ("1", "2"):
        ended = jobs.slurm.wait_for_end(f"{number}_{seed}")
        assert ended["JobState"] == "COMPLETED", jobs.output("seeds", f"{number}_{seed}")
        assert f"seed: {seed}\n" in jobs.run_folder(f"seeds-seed_{seed}").config.read_text()


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        (["--nodes=2"], ["+experiment=demo"], "the ranks on each node are not given; add --ntasks-per-node=N, one per GPU"),
        (["--nodes=2", "--ntasks-per-node=1"], [], "there is nothing to train; give settings behind the script's name"),
        (["--ntasks-per-node=1"], ["+experiment=nothing"], "the settings do not work, see above"),
    ],
)
def test_sbatch_alone_says_what_it_lacks(jobs: Jobs, options: list[str], settings: list[str], message: str) -> None:
    done = jobs.command("sbatch", "--parsable", *options, str(SCRIPTS / "pretrain.sbatch"), *settings)
    ended = jobs.slurm.wait_for_end(done.stdout.strip())
    output = (jobs.folder / f"pretrain-{done.stdout.strip()}.out").read_text()
    assert ended["ExitCode"] == "2:0" and f"error: {message}" in output.splitlines()[-1] or message in output, output
