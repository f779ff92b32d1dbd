"""Two machines on this one: network namespaces, each with its own interface, address and host name, at a switch in a third."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.launchers import REPOSITORY


def why_not() -> str | None:
    """What keeps this machine from being two; None where nothing does."""
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return "there is no `ip` or no `unshare` here; on Debian: apt install iproute2 util-linux"
    name = f"try{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces cannot be made here ({made.stderr.strip()}); it takes root"
    bridge = subprocess.run(["ip", "-n", name, "link", "add", "switch", "type", "bridge"], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], check=True)
    return f"bridges cannot be made here ({bridge.stderr.strip()})" if bridge.returncode else None


class TwoMachines:
    """node0 at 192.168.77.1 and node1 at 192.168.77.2, each with `eth0` and `lo`; `cut` and `heal` the line between them, as silently as a
    broken switch does. The name node0 stands for 127.0.1.1 on node0 itself, as Debian has it."""

    ADDRESSES = ("192.168.77.1", "192.168.77.2")

    def __init__(self) -> None:
        self._names = [f"pretrain{os.getpid()}-{part}" for part in ("switch", "node0", "node1")]
        switch, *nodes = self._names
        for name in self._names:
            self._ip("netns", "add", name)
        self._ip("-n", switch, "link", "add", "switch", "type", "bridge")
        self._ip("-n", switch, "link", "set", "switch", "up")
        for number, (node, address) in enumerate(zip(nodes, self.ADDRESSES, strict=True)):
            self._ip("-n", node, "link", "add", "eth0", "type", "veth", "peer", "name", f"port{number}", "netns", switch)
            self._ip("-n", switch, "link", "set", f"port{number}", "master", "switch", "up")
            self._ip("-n", node, "addr", "add", f"{address}/24", "dev", "eth0")
            for interface in ("eth0", "lo"):
                self._ip("-n", node, "link", "set", interface, "up")
            hosts = self._files(node) / "hosts"  # which `ip netns exec` shows as /etc/hosts
            hosts.parent.mkdir(parents=True)
            hosts.write_text(f"127.0.0.1 localhost\n{('127.0.1.1', self.ADDRESSES[0])[number]} node0\n")

    def start(self, number: int, folder: Path, *settings: str, **variables: str) -> subprocess.Popen:
        """`python -m pretrain SETTINGS` as the rank of that number on the machine of that number; it speaks into `said_<number>`."""
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "RANK": str(number), "LOCAL_RANK": "0", "WORLD_SIZE": "2"} | variables
        command = ["ip", "netns", "exec", self._names[1 + number], "unshare", "--uts", "sh", "-c"]
        command += [f'hostname node{number}; exec "$@"', "sh", sys.executable, "-m", "pretrain", *settings]
        with (folder / f"said_{number}").open("w") as said:
            return subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)

    def cut(self) -> None:
        self._ip("-n", self._names[0], "link", "set", "port1", "nomaster")

    def heal(self) -> None:
        self._ip("-n", self._names[0], "link", "set", "port1", "master", "switch")

    def remove(self) -> None:
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name])
            shutil.rmtree(self._files(name), ignore_errors=True)

    @staticmethod
    def _files(name: str) -> Path:
        return Path("/etc/netns") / name

    @staticmethod
    def _ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
