"""How much memory a rank may use, and the most that it did use since a moment."""

from abc import ABC, abstractmethod
from pathlib import Path

import torch

from pretrain.errors import UserError


class DeviceMemory(ABC):
    """The memory of one device, seen from this process."""

    device: torch.device
    description: str
    """Device and size."""

    @abstractmethod
    def budget_bytes(self, margin: float, ranks: int) -> float:
        """What this process may have in use at a time, where `ranks` share what is free but for `margin`, a share of it."""

    @abstractmethod
    def begin(self) -> None:
        """Give back what is not in use, and begin to watch."""

    @abstractmethod
    def peak_bytes(self) -> int:
        """The most in use since `begin`."""


def of(device: torch.device) -> DeviceMemory:
    """The memory of a GPU, or of the host."""
    return _Gpu(device) if device.type == "cuda" else _Host(device)


class _Gpu(DeviceMemory):
    def __init__(self, device: torch.device) -> None:
        about = torch.cuda.get_device_properties(device)
        self.device, self.description = device, f"{about.name}, {about.total_memory} bytes"

    def budget_bytes(self, margin: float, ranks: int) -> float:
        """A GPU has one rank."""
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(self.device)
        return (free + torch.cuda.memory_reserved(self.device)) * (1 - margin)

    def begin(self) -> None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_reserved(self.device)


class _Host(DeviceMemory):
    """Linux counts a process's largest resident size (VmHWM), and begins anew when it is told to (proc(5), clear_refs)."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.description = device, f"CPU, {_kilobytes('/proc/meminfo', 'MemTotal')} kB"

    def budget_bytes(self, margin: float, ranks: int) -> float:
        resident = _kilobytes("/proc/self/status", "VmRSS")
        return 1024 * (resident + (1 - margin) * _kilobytes("/proc/meminfo", "MemAvailable") / ranks)

    def begin(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError as error:
            raise UserError(f"train.micro_batch_size=auto cannot watch this process's memory ({error.strerror}); give a number") from error

    def peak_bytes(self) -> int:
        return 1024 * _kilobytes("/proc/self/status", "VmHWM")


def _kilobytes(path: str, name: str) -> int:
    try:
        (line,) = (line for line in Path(path).read_text().splitlines() if line.startswith(f"{name}:"))
    except (OSError, ValueError) as error:
        raise UserError(f"train.micro_batch_size=auto finds no {name} in {path}; give a number") from error
    return int(line.split()[1])
