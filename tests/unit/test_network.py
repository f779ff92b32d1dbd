"""The interface over which ranks meet: asked for, from the environment, or the one that leads to the first rank."""

import os
import socket
import time

import pytest
import torch.distributed as dist

from pretrain import network
from pretrain.errors import UserError


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")  # so that what is set is undone
        monkeypatch.delenv(name)


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch):
    """`met(rank=0, master="node0", **addresses)` is the store where a rank has met another, which is known there by its address."""

    def at(rank: int, master: str, other: str = "") -> dist.Store:
        for name, value in {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": master}.items():
            monkeypatch.setenv(name, value)
        store = dist.HashStore()
        store.set(f"address/{1 - rank}", other)
        return store

    return at


def test_on_rank_0_s_machine_it_is_the_one_that_leads_to_another(met, monkeypatch: pytest.MonkeyPatch):
    """Its name stands for 127.0.1.1 there, as Debian has it."""
    routes = {"node0": "127.0.0.1", "127.0.0.1": "127.0.0.1", "10.1.0.7": "10.1.0.1"}
    monkeypatch.setattr(network, "_source_address", routes.get)
    monkeypatch.setattr(network, "addresses", lambda: {"lo": "127.0.0.1", "ib0": "10.1.0.1", "eth0": None})
    network.choose_interface(None, met(rank=0, master="node0", other="10.1.0.7"))
    assert os.environ.pop("GLOO_SOCKET_IFNAME") == "ib0"
    network.choose_interface(None, met(rank=0, master="node0"))  # the other rank is on this machine too
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"


def test_a_rank_of_another_machine_says_from_where_it_comes(met, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(network, "_source_address", {"10.1.0.1": "10.1.0.7"}.get)
    monkeypatch.setattr(network, "is_own", lambda host: False)
    monkeypatch.setattr(network, "addresses", lambda: {"lo": "127.0.0.1", "ib0": "10.1.0.7"})
    store = met(rank=1, master="10.1.0.1")
    network.choose_interface(None, store)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "ib0" and store.get("address/1") == b"10.1.0.7"


def test_the_loopback_leads_to_this_machine():
    assert network.addresses()["lo"] == "127.0.0.1"
    assert network.interface_towards("127.0.0.1") == network.interface_towards("localhost") == "lo"


def test_an_address_that_nobody_has_leads_nowhere(met, monkeypatch: pytest.MonkeyPatch):
    def unknown(*_):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert network.interface_towards("node1") is None
    network.choose_interface(None, met(rank=1, master="node1"))
    assert "GLOO_SOCKET_IFNAME" not in os.environ


def test_what_is_asked_for_goes_before_the_environment_and_that_before_what_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(network, "addresses", lambda: {"lo": "127.0.0.1", "ib0": "10.1.0.1", "eth0": None})
    network.choose_interface(None)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo" and "NCCL_SOCKET_IFNAME" not in os.environ
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    network.choose_interface(None)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth0" and "NCCL_SOCKET_IFNAME" not in os.environ
    network.choose_interface("ib0")
    assert os.environ["GLOO_SOCKET_IFNAME"] == os.environ["NCCL_SOCKET_IFNAME"] == "ib0"


@pytest.mark.parametrize(
    ("asked", "given", "named"), [("ib7", None, "launch.interface=ib7"), (None, "lo,ib7", "GLOO_SOCKET_IFNAME=lo,ib7")]
)
def test_an_interface_that_is_not_there_is_named_beside_those_that_are(monkeypatch: pytest.MonkeyPatch, asked, given, named: str):
    monkeypatch.setattr(network, "addresses", lambda: {"lo": "127.0.0.1", "eth0": None})
    if given:
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", given)
    message = f"{named}: {socket.gethostname()} has no network interface ib7; it has eth0 .no IPv4 address., lo .127.0.0.1."
    with pytest.raises(UserError, match=message):
        network.choose_interface(asked)


def test_whose_address_it_is():
    assert network.is_own("127.0.0.1") and network.is_own("localhost")
    assert not network.is_own("192.0.2.1")  # of the block for documentation (RFC 5737)


def test_nothing_is_tried_beyond_the_deadline():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        begun = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            network.reach("127.0.0.1", nobody.getsockname()[1], begun + 0.3)
    assert time.monotonic() - begun < 5


def test_a_port_is_reached_by_way_of_an_address():
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
        network.reach("127.0.0.1", port, time.monotonic() + 5)
    network.reach_through("127.0.0.1", port, time.monotonic() + 5)
