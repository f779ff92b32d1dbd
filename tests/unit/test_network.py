"""The interface over which ranks meet: asked for, from the environment, or the one that leads to the first rank."""

import os
import socket
import time

import pytest

from pretrain import network
from pretrain.errors import UserError


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")  # so that what is set is undone
        monkeypatch.delenv(name)


def test_the_loopback_leads_to_this_machine():
    assert network.addresses()["lo"] == "127.0.0.1"
    assert network.interface_towards("127.0.0.1") == network.interface_towards("localhost") == "lo"


def test_an_address_that_nobody_has_leads_nowhere(monkeypatch: pytest.MonkeyPatch):
    def unknown(*_):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert network.interface_towards("node1") is None
    network.choose_interface(None, "node1")
    assert "GLOO_SOCKET_IFNAME" not in os.environ


def test_what_is_asked_for_goes_before_the_environment_and_that_before_what_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(network, "addresses", lambda: {"lo": "127.0.0.1", "ib0": "10.1.0.1", "eth0": None})
    network.choose_interface(None, "127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo" and "NCCL_SOCKET_IFNAME" not in os.environ
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    network.choose_interface(None, "127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth0" and "NCCL_SOCKET_IFNAME" not in os.environ
    network.choose_interface("ib0", "127.0.0.1")
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
        network.choose_interface(asked, "127.0.0.1")


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
