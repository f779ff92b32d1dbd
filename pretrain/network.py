"""Which network interface the ranks of several machines meet over.

Gloo takes the address that this machine's own name stands for, which is often the loopback one, and then nobody on another machine can
reach it. Unless the user names an interface, the one that leads to the other ranks' machines is taken. NCCL finds its own.
"""

import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pretrain.errors import UserError

_GLOO, _NCCL = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"
_SIOCGIFADDR = 0x8915
_RETRY_SECONDS = 0.2


def choose_interface(asked: str | None, store: Any = None) -> None:
    """Set GLOO_SOCKET_IFNAME for ranks of this machine alone or, with the `store` at which they have met, for those of several; and
    NCCL_SOCKET_IFNAME where an interface is asked for.

    `asked` (launch.interface) goes before what the environment says, and that before what is found here. Raises UserError for an
    interface that this machine does not have.
    """
    if asked is not None:
        os.environ[_GLOO] = os.environ[_NCCL] = asked
    if name := os.environ.get(_GLOO):
        _check(name, f"launch.interface={asked}" if asked else f"{_GLOO}={name}")
    # Also where nothing is to be found any more: others ask from where this rank comes.
    found = interface_towards("127.0.0.1") if store is None else _interface_of_several(store)
    if found and _GLOO not in os.environ:
        os.environ[_GLOO] = found


def _interface_of_several(store: Any) -> str | None:
    """The interface that leads to another machine. What leads to rank 0 is the loopback on rank 0's own machine, and its own name often
    stands for an address that nobody else has; the ranks of the other machines are known there by the address that they come from."""
    rank, size = os.environ["RANK"], int(os.environ["WORLD_SIZE"])
    host = os.environ["MASTER_ADDR"]
    own = _source_address(host)
    elsewhere = own is not None and not own.startswith("127.") and not is_own(host)
    store.set(f"address/{rank}", own if own and elsewhere else "")
    if elsewhere:
        return interface_towards(host)
    others = [text.decode() for text in store.multi_get([f"address/{number}" for number in range(size)])]
    return interface_towards(next(filter(None, others), "127.0.0.1"))


def interface_towards(host: str) -> str | None:
    """The interface over which packets to `host` leave this machine; None where that cannot be told."""
    own = _source_address(host)
    return next((name for name, address in addresses().items() if address == own), None) if own else None


def _source_address(host: str) -> str | None:
    """The address of this machine's from which packets to `host` go."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, 1, socket.AF_INET, socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)  # sends nothing
            return probe.getsockname()[0]
    except OSError:
        return None


def addresses() -> dict[str, str | None]:
    """This machine's interfaces, each with its first IPv4 address."""
    return {name: _address(name) for _, name in socket.if_nameindex()}


def resolve(host: str, deadline: float) -> None:
    """Return once `host` has an address; raises OSError where it has none until `deadline`, of `time.monotonic`."""
    _keep_trying(lambda: socket.getaddrinfo(host, None), deadline)


def reach(host: str, port: int, deadline: float) -> None:
    """Return once something listens at `host`; raises OSError where nothing does until `deadline`."""
    _keep_trying(lambda: socket.create_connection((host, port), timeout=max(0.1, deadline - time.monotonic())).close(), deadline)


def reach_through(host: str, port: int, deadline: float) -> None:
    """Return once this machine reaches its own `port` by the address `host`, which somebody else passes on; raises OSError likewise."""
    with socket.create_server(("", port)):
        reach(host, port, deadline)


def is_own(host: str) -> bool:
    """Whether `host`, which has an address, is this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.bind((socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0], 0))
        return True
    return False


def _keep_trying(action: Callable[[], object], deadline: float) -> None:
    while True:
        try:
            action()
            return
        except OSError:
            if time.monotonic() + _RETRY_SECONDS >= deadline:
                raise
            time.sleep(_RETRY_SECONDS)


def describe() -> str:
    """For a message: `eth0 (10.0.0.7), lo (127.0.0.1)`."""
    return ", ".join(f"{name} ({address or 'no IPv4 address'})" for name, address in sorted(addresses().items()))


def chosen() -> str:
    """The interface that Gloo uses, for a message."""
    return os.environ.get(_GLOO) or f"the interface of the name {socket.gethostname()}"


def _check(names: str, setting: str) -> None:
    missing = [name for name in names.split(",") if name not in addresses()]
    if missing:
        raise UserError(f"{setting}: {socket.gethostname()} has no network interface {' or '.join(missing)}; it has {describe()}")


def _address(interface: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])
