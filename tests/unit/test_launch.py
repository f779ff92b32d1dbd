"""How many ranks, from where, and what is checked before anything is prepared or written."""

from pathlib import Path

import pytest

from pretrain import launch as launching
from pretrain.config.compose import compose
from pretrain.errors import UserError

TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """`machine(gpus=0, cores=2)` is what the launcher sees."""

    def has(gpus: int = 0, cores: int = 2) -> None:
        monkeypatch.setattr(launching, "count_gpus", lambda: gpus)
        monkeypatch.setattr(launching, "_cores", lambda: cores)

    return has


def size(*overrides: str) -> int:
    return launching.find_world(compose(list(overrides))).size


@pytest.mark.parametrize(("gpus", "cores", "ranks"), [(0, 1, 1), (0, 2, 2), (0, 64, 2), (1, 64, 1), (8, 64, 8)])
def test_one_rank_per_gpu_or_two_on_a_cpu(machine, gpus: int, cores: int, ranks: int):
    machine(gpus, cores)
    assert size() == ranks
    assert size("launch.num_processes=3") == 3


def test_under_torchrun_this_process_is_one_of_its_ranks(machine, monkeypatch: pytest.MonkeyPatch):
    machine(gpus=2)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    world = launching.find_world(compose([]))
    assert (world.size, world.joined) == (4, True)
    assert size("launch.num_processes=4") == 4
    with pytest.raises(UserError, match="launch.num_processes=2 but the launcher started WORLD_SIZE=4"):
        size("launch.num_processes=2")
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(UserError, match="not LOCAL_RANK; set all of them"):
        size()


def test_more_ranks_than_gpus_are_refused(machine):
    machine(gpus=2)
    with pytest.raises(UserError, match="launch.num_processes=4 but this machine has 2 GPUs, one per rank; give 2 or less"):
        launching.launch(compose(["launch.num_processes=4"]))


def test_ranks_on_a_cpu_share_its_cores_unless_the_user_says_otherwise(machine, monkeypatch: pytest.MonkeyPatch):
    machine(cores=8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    world = launching.find_world(compose(["launch.num_processes=4"]))
    found = launching._cpu_environment(world)
    assert (found["DS_ACCELERATOR"], found["OMP_NUM_THREADS"]) == ("cpu", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert "OMP_NUM_THREADS" not in launching._cpu_environment(world)


def test_ranks_are_told_apart_and_meet_at_one_place():
    first, second = launching._local_environments(2)
    assert (first["RANK"], first["LOCAL_RANK"], second["RANK"], second["LOCAL_RANK"]) == ("0", "0", "1", "1")
    assert first["MASTER_PORT"] == second["MASTER_PORT"] and first["WORLD_SIZE"] == "2"


@pytest.mark.parametrize("place", ["a_file/runs", "dangling"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, place: str):
    (tmp_path / "a_file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "a_file" / "nowhere")
    with pytest.raises(UserError, match="cannot be written .*; give another run.dir"):
        launching._check_run_folder(tmp_path / place / "demo")


def test_the_check_of_the_run_folder_leaves_no_trace(tmp_path: Path):
    launching._check_run_folder(tmp_path / "runs" / "demo")
    assert not list(tmp_path.iterdir())
