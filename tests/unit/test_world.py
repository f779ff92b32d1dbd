"""How many ranks, and who started them: the user alone, torchrun, or srun."""

import os

import pytest

from pretrain import world as worlds
from pretrain.errors import UserError
from pretrain.world import World, find_world, first_host, slurm_variables, speaks
from tests.launchers import srun_variables

TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
OTHERS = ("LOCAL_WORLD_SIZE", *(name for name in os.environ if name.startswith("SLURM_")))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """`machine(gpus=2, RANK="1")` is what the launcher sees; nothing of it is left."""
    for name in (*TORCHRUN, *OTHERS):
        monkeypatch.setenv(name, "")  # so that what find_world itself sets is undone, too
        monkeypatch.delenv(name)

    def has(gpus: int = 0, cores: int = 2, **variables: str) -> None:
        monkeypatch.setattr(worlds, "count_gpus", lambda: gpus)
        monkeypatch.setattr(worlds, "count_cores", lambda: cores)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return has


@pytest.mark.parametrize(("gpus", "cores", "ranks"), [(0, 1, 1), (0, 2, 2), (0, 64, 2), (1, 64, 1), (8, 64, 8)])
def test_one_rank_per_gpu_or_two_on_a_cpu(machine, gpus: int, cores: int, ranks: int):
    machine(gpus, cores)
    assert find_world(None) == World(ranks, None, gpus, ranks)


def test_the_user_may_ask_for_another_number_but_not_for_more_than_the_gpus(machine):
    machine()
    assert find_world(3) == World(3, None, 0, 3)
    machine(gpus=2)
    assert find_world(1) == World(1, None, 2, 1)
    with pytest.raises(UserError, match="launch.num_processes=4 but this machine has 2 GPUs, one per rank; give 2 or less"):
        find_world(4)


def test_under_torchrun_this_process_is_one_of_its_ranks(machine, monkeypatch: pytest.MonkeyPatch):
    machine(gpus=2, **TORCHRUN)
    assert find_world(None) == find_world(4) == World(4, 1, 2, 4)
    with pytest.raises(UserError, match="launch.num_processes=2 but the launcher started WORLD_SIZE=4"):
        find_world(2)
    machine(gpus=2, LOCAL_WORLD_SIZE="4")
    with pytest.raises(UserError, match="the launcher started 4 ranks on .*, which has 2 GPUs; start one per GPU"):
        find_world(None)
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(UserError, match="not LOCAL_RANK; set all of them"):
        find_world(None)


def test_under_srun_this_process_is_one_of_its_tasks(machine):
    machine(gpus=2, **srun_variables(1, 2, SLURM_JOB_ID="123456"))
    assert find_world(None) == World(2, 1, 2, 2, by_srun=True)
    assert {name: os.environ[name] for name in TORCHRUN} == {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "18456",
    }


def test_a_task_that_sees_only_its_own_gpu_uses_that_one(machine):
    machine(gpus=1, **srun_variables(3, 4))
    assert find_world(None) == World(4, 3, 1, 4, by_srun=True)
    assert os.environ["LOCAL_RANK"] == "0"


@pytest.mark.parametrize(
    "changed",
    [
        {"SLURM_STEP_ID": ""},  # a batch script, without srun
        {"SLURM_STEP_ID": "4294967291"},  # the same as newer versions number it
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"},  # a shell under srun --pty, or one task that is to have all GPUs
    ],
    ids=["batch", "numbered-batch", "one-task"],
)
def test_a_process_in_a_job_that_is_not_one_of_several_tasks_starts_its_own_ranks(machine, changed: dict[str, str]):
    machine(gpus=4, **srun_variables(0, 2, **changed))
    assert find_world(None) == World(4, None, 4, 4)


@pytest.mark.parametrize(
    ("counts", "node", "here"), [("8", "0", 8), ("2(x3),1", "2", 2), ("2(x3),1", "3", 1), ("4,2", "1", 2), ("", "0", 4), ("2", "7", 4)]
)
def test_the_ranks_of_this_machine(machine, counts: str, node: str, here: int):
    machine(**srun_variables(1, 4, SLURM_STEP_TASKS_PER_NODE=counts, SLURM_NODEID=node))
    assert find_world(None).size_here == here
    machine(LOCAL_WORLD_SIZE="3", **TORCHRUN)
    assert find_world(None).size_here == 3


def test_torchrun_under_srun_is_torchrun():
    assert slurm_variables(srun_variables(0, 2) | TORCHRUN) == {}


def test_the_ranks_of_a_step_meet_on_its_first_node(monkeypatch: pytest.MonkeyPatch):
    step = srun_variables(5, 8, SLURM_STEP_NODELIST="localhost,gpu[07-09]", SLURM_STEP_NUM_NODES="4")
    assert slurm_variables(step)["MASTER_ADDR"] == "localhost"
    given = slurm_variables(step | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"})
    assert (given["MASTER_ADDR"], given["MASTER_PORT"]) == ("10.0.0.1", "29500")


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("gpu[07-09,12],login", "gpu07"),
        ("gpu[3,5-9]", "gpu3"),
        ("rack[1-2]-node[04-08],x", "rack1-node04"),
        ("node7.cluster", "node7.cluster"),
        ("", ""),
    ],
)
def test_the_first_host_of_a_list(hosts: str, first: str):
    assert first_host(hosts) == first


def test_one_rank_tells_the_user_of_a_mistake_that_all_make(machine):
    machine()
    assert speaks()
    machine(LOCAL_RANK="1")
    assert not speaks()
    machine(**srun_variables(2, 4, SLURM_LOCALID="0"), LOCAL_RANK="0")
    assert not speaks()
