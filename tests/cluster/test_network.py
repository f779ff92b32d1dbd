"""Two machines and the line between them: where it is not what the ranks think, and where it breaks."""

import subprocess
import time
from pathlib import Path

import pytest

from pretrain.metrics import read_metrics
from pretrain.run_folder import RunFolder
from tests.cluster.machines import TwoMachines
from tests.distributed.test_layout_invariance import write_corpus
from tests.forked_runs import SMALL

TIMEOUT = 8
CUT = 5
PORT = "29517"


class Network:
    """Runs of two ranks, one on each machine."""

    def __init__(self, machines: TwoMachines, folder: Path) -> None:
        self.machines, self.folder = machines, folder
        write_corpus(folder / "corpus.txt")

    def start(self, *settings: str, address: str = TwoMachines.ADDRESSES[0]) -> list[subprocess.Popen]:
        where = {"MASTER_ADDR": address, "MASTER_PORT": PORT}
        return [self.machines.start(number, self.folder, *SMALL, *settings, **where) for number in (0, 1)]

    def said(self, number: int) -> str:
        return (self.folder / f"said_{number}").read_text()

    def errors(self, number: int) -> list[str]:
        return [line for line in self.said(number).splitlines() if line.startswith("error: ")]

    def steps(self, name: str) -> int:
        metrics = RunFolder(self.folder / "runs" / name).metrics
        return max((line["step"] for line in read_metrics(metrics)), default=0) if metrics.exists() else 0

    def wait_for_step(self, name: str, step: int, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while self.steps(name) < step:
            assert time.monotonic() < deadline, f"no step {step}:\n{self.said(0)}\n{self.said(1)}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def network(machines: TwoMachines, tmp_path_factory: pytest.TempPathFactory) -> Network:
    return Network(machines, tmp_path_factory.mktemp("network"))


def ended(ranks: list[subprocess.Popen]) -> list[int]:
    """Their exit codes; none is left."""
    try:
        return [rank.wait(120) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()


def test_an_interface_that_is_not_there(network: Network) -> None:
    assert ended(network.start("launch.interface=eth9")) == [2, 2]
    (error,) = network.errors(0) + network.errors(1)
    node, address = next((f"node{number}", address) for number, address in enumerate(TwoMachines.ADDRESSES) if f"node{number}" in error)
    assert error == f"error: launch.interface=eth9: {node} has no network interface eth9; it has eth0 ({address}), lo (127.0.0.1)"


def test_a_name_that_is_the_loopback_on_its_own_machine(network: Network) -> None:
    assert ended(network.start("run.name=named", "train.num_steps=2", address="node0")) == [0, 0], network.said(0) + network.said(1)


def test_an_interface_over_which_the_machines_do_not_reach_each_other(network: Network) -> None:
    begun = time.monotonic()
    assert ended(network.start("launch.interface=lo", "launch.rendezvous_timeout_seconds=3")) == [2, 2]
    assert time.monotonic() - begun < 30
    (error,) = network.errors(0) + network.errors(1)
    assert f"met the others at 192.168.77.1 port {PORT}, but the 2 ranks did not reach each other within 3 s, this one over lo" in error
    assert "set launch.interface to the one that the machines share" in error


@pytest.mark.parametrize("address", ["192.168.77.9", "192.168.77.2", "nowhere.invalid"], ids=["nobody", "rank-1", "no-name"])
def test_an_address_at_which_rank_0_is_not(network: Network, address: str) -> None:
    begun = time.monotonic()
    assert ended(network.start("launch.rendezvous_timeout_seconds=2", address=address)) == [2, 2]
    assert time.monotonic() - begun < 30
    for number in (0, 1):
        assert "frame #" not in network.said(number)
        (error,) = network.errors(number)
        assert f"rank {number} on node{number} waited 2 s at {address} port {PORT} for all 2 ranks" in error
        assert "MASTER_ADDR is to be rank 0's machine" in error


def test_a_short_cut_heals_a_long_one_ends_both_and_the_same_command_goes_on(network: Network) -> None:
    settings = (
        "run.name=cut",
        f"launch.timeout_seconds={TIMEOUT}",
        "train.num_steps=200",
        "train.checkpoint_every_steps=5",
        "train.eval_every_steps=0",
    )
    ranks = network.start(*settings)
    network.wait_for_step("cut", 10)
    network.machines.cut()
    time.sleep(CUT)  # the length of the cut is what is tested
    network.machines.heal()
    reached = network.steps("cut")
    network.wait_for_step("cut", reached + 20)  # nobody has noticed
    assert [rank.poll() for rank in ranks] == [None, None]

    network.machines.cut()
    begun = time.monotonic()
    assert ended(ranks) == [1, 1]
    assert time.monotonic() - begun < TIMEOUT + 20
    network.machines.heal()
    assert network.said(0).splitlines()[-1].startswith("rank 1 does not answer: it is frozen or cut off")
    assert network.said(1).splitlines()[-1].startswith("rank 0 does not answer: the store that it holds gives no answer")
    assert "Traceback" not in network.said(0) + network.said(1)
    newest = RunFolder(network.folder / "runs" / "cut").latest_checkpoint()
    assert newest is not None and int(newest.name[5:]) >= reached

    assert ended(network.start(*settings, "run.resume=must")) == [0, 0], network.said(0)
    assert f"going on from step {int(newest.name[5:])} of" in network.said(0)
    lines = [line["step"] for line in read_metrics(RunFolder(network.folder / "runs" / "cut").metrics) if line["kind"] == "train"]
    assert lines == list(range(1, 201))
