"""What is settled before anything is prepared or written: the environment of the ranks, and whether the run folder can be written."""

import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from pretrain import launch as launching
from pretrain import world as worlds
from pretrain.config.compose import compose
from pretrain.errors import UserError
from pretrain.world import World


def test_ranks_on_a_cpu_share_its_cores_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launching, "count_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    world = World(16, 3, 0, 4)
    found = launching._cpu_environment(world)
    assert (found["DS_ACCELERATOR"], found["OMP_NUM_THREADS"]) == ("cpu", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert "OMP_NUM_THREADS" not in launching._cpu_environment(world)


def test_ranks_are_told_apart_and_meet_at_one_place():
    first, second = launching._local_environments(2)
    assert (first["RANK"], first["LOCAL_RANK"], second["RANK"], second["LOCAL_RANK"]) == ("0", "0", "1", "1")
    assert first["MASTER_PORT"] == second["MASTER_PORT"] and first["WORLD_SIZE"] == "2"


def test_a_plan_may_be_for_more_gpus_than_this_machine_has(monkeypatch: pytest.MonkeyPatch):
    planned: list[int] = []
    monkeypatch.setitem(sys.modules, "pretrain.plan.of_run", SimpleNamespace(print_plan=lambda config, ranks: planned.append(ranks)))
    monkeypatch.setattr(worlds, "count_gpus", lambda: 1)
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert launching.launch(compose(["run.dry_run=true", "launch.num_processes=8"])) == 0
    assert launching.launch(compose(["run.dry_run=true"])) == 0
    assert planned == [8, 1]
    with pytest.raises(UserError, match="launch.num_processes=8 but this machine has 1 GPUs"):
        launching.launch(compose(["launch.num_processes=8"]))


@pytest.mark.parametrize("place", ["a_file/runs", "dangling"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, place: str):
    (tmp_path / "a_file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "a_file" / "nowhere")
    with pytest.raises(UserError, match="cannot be written .*; give another run.dir"):
        launching._check_run_folder(tmp_path / place / "demo")


def test_the_check_of_the_run_folder_leaves_no_trace(tmp_path: Path):
    launching._check_run_folder(tmp_path / "runs" / "demo")
    assert not list(tmp_path.iterdir())


class FrozenStore:
    """Of a rank 0 that does not answer any more."""

    def __init__(self) -> None:
        self.asked, self.over = threading.Event(), threading.Event()

    def add(self, key: str, number: int) -> int:
        self.asked.set()
        self.over.wait(60)
        return number


def test_at_the_end_nobody_waits_for_ever_for_a_rank_0_that_is_frozen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launching, "_LEAVING_SECONDS", 0.2)
    store = FrozenStore()
    launching._leave_together(store, 1, 2)
    assert store.asked.is_set() and not store.over.is_set()
    store.over.set()
