"""The process group: who this process is, and the few collectives that the harness itself needs."""

import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from pretrain import network
from pretrain.errors import ElsewhereError, UserError

T = TypeVar("T")

_timeout, _rendezvous_timeout = timedelta(minutes=30), timedelta(minutes=5)


def meet(timeout_seconds: int) -> Any:
    """The store at MASTER_ADDR and MASTER_PORT, once all WORLD_SIZE ranks are there. Raises UserError where they do not come."""
    rank, size, address, port = (os.environ[name] for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    deadline = time.monotonic() + timeout_seconds
    try:
        # torch would try these too, but fail with a page of its own, and later.
        network.resolve(address, deadline)
        if rank != "0":
            network.reach(address, int(port), deadline)
        elif not network.is_own(address):
            network.reach_through(address, int(port), deadline)
        left = timedelta(seconds=max(1.0, deadline - time.monotonic()))
        store, *_ = next(iter(dist.rendezvous("env://", timeout=left)))
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"rank {rank} on {socket.gethostname()} waited {timeout_seconds} s at {address} port {port} for all {size} ranks ({reason}); "
            f"see that each was started and reaches this address; MASTER_ADDR is to be rank 0's machine, MASTER_PORT a free port of it; or "
            f"give more launch.rendezvous_timeout_seconds"
        ) from error
    return dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def init(timeout_seconds: int, rendezvous_timeout_seconds: int = 300, store: Any = None) -> None:
    """Join the process group of the ranks that meet at `store` or, without it, at MASTER_ADDR; alone, make a group of one.

    Collectives of every group, whoever makes it, then end after `timeout_seconds`. Raises UserError where the ranks have met but do not
    reach each other within `rendezvous_timeout_seconds`.
    """
    global _timeout, _rendezvous_timeout
    if dist.is_initialized():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    _timeout, _rendezvous_timeout = timedelta(seconds=timeout_seconds), timedelta(seconds=rendezvous_timeout_seconds)
    # DeepSpeed makes groups of its own, while it is set up and later, and asks for no timeout.
    dist.distributed_c10d.default_pg_timeout = dist.distributed_c10d.default_pg_nccl_timeout = _timeout
    if "RANK" in os.environ:
        store = dist.PrefixStore("group", store or meet(rendezvous_timeout_seconds))
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        _connected(lambda timeout: dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout))
    else:
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")  # DeepSpeed reads them
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=_timeout)


def _connected(make_group: Callable[[timedelta], Any]) -> Any:
    """A group that is made within the rendezvous timeout, and whose collectives have the ordinary one."""
    try:
        group = make_group(_rendezvous_timeout)
    except (RuntimeError, ValueError) as error:
        size, seconds = os.environ["WORLD_SIZE"], int(_rendezvous_timeout.total_seconds())
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"rank {os.environ['RANK']} on {socket.gethostname()} met the others at {os.environ['MASTER_ADDR']} port "
            f"{os.environ['MASTER_PORT']}, but the {size} ranks did not reach each other within {seconds} s, this one over "
            f"{network.chosen()} ({reason}); this machine has {network.describe()}: set launch.interface to the one that the machines share"
        ) from error
    dist.distributed_c10d._set_pg_timeout(_timeout, group)
    return group


def shut_down() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that writes files and speaks to the user."""
    return rank() == 0


def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def barrier() -> None:
    if world_size() > 1:
        dist.barrier()


def sum_over_ranks(values: dict[str, float]) -> dict[str, float]:
    """Add each value over the ranks, in float64; all ranks give the same keys."""
    return _reduce(values, dist.ReduceOp.SUM)


def max_over_ranks(values: dict[str, float]) -> dict[str, float]:
    """The largest of each value over the ranks; all ranks give the same keys."""
    return _reduce(values, dist.ReduceOp.MAX)


def over_ranks(values: dict[str, int]) -> dict[str, list[int]]:
    """Each value on every rank, in the order of the ranks, exact below 2^53; all ranks give the same keys."""
    packed = torch.tensor([float(value) for value in values.values()], dtype=torch.float64, device=device())
    gathered = [packed]
    if world_size() > 1:
        gathered = [torch.empty_like(packed) for _ in range(world_size())]
        dist.all_gather(gathered, packed)
    columns = torch.stack(gathered, dim=1).long().tolist()
    return dict(zip(values, columns, strict=True))


def cpu_group() -> Any:
    """A further group of all ranks, whose collectives run on the CPU: for a thread of its own, and for what must not wait for the GPU.
    A collective call."""
    return _connected(lambda timeout: dist.new_group(backend="gloo", timeout=timeout)) if world_size() > 1 else None


def any_over_ranks(flags: list[bool], group: Any) -> list[bool]:
    """Whether each flag is up on any rank of a CPU group."""
    if world_size() == 1:
        return flags
    raised = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(raised, dist.ReduceOp.MAX, group=group)
    return [bool(flag) for flag in raised]


def gather_objects(value: Any, group: Any = None) -> list[Any]:
    """What every rank gave, in the order of the ranks, on every rank."""
    gathered: list[Any] = [None] * world_size()
    if world_size() == 1:
        return [value]
    dist.all_gather_object(gathered, value, group=group)
    return gathered


def broadcast_object(value: Any, group: Any = None) -> Any:
    """What rank 0 gave, on every rank."""
    holder = [value]
    if world_size() > 1:
        dist.broadcast_object_list(holder, src=0, group=group)
    return holder[0]


def broadcast(tensor: torch.Tensor) -> torch.Tensor:
    """Make `tensor`, which is on this rank's device, what it is on rank 0."""
    if world_size() > 1:
        dist.broadcast(tensor, src=0)
    return tensor


def on_main(function: Callable[[], T], group: Any = None) -> T:
    """Call `function` on rank 0 and return its result on every rank; what it raises is raised on every rank."""
    result, failure = None, None
    if is_main():
        try:
            result = function()
        except Exception as error:
            failure = error if isinstance(error, UserError | OSError) else ElsewhereError(f"on rank 0: {error!r}")
            broadcast_object((None, failure), group)
            raise
    result, failure = broadcast_object((result, failure), group)
    if failure is not None:
        raise failure
    return result


def on_all(function: Callable[[], T], group: Any = None) -> T:
    """Call `function` on every rank; where it raises an OSError or a UserError on some, the first rank's is raised on all."""
    result, failure = None, None
    try:
        result = function()
    except (OSError, UserError) as error:
        failure = error
    failures = [found for found in gather_objects(failure, group) if found is not None]
    if failures:
        raise failures[0]
    return result  # type: ignore[return-value]


def _reduce(values: dict[str, float], op: Any) -> dict[str, float]:
    if world_size() == 1:
        return dict(values)
    names = sorted(values)
    packed = torch.tensor([float(values[name]) for name in names], dtype=torch.float64, device=device())
    dist.all_reduce(packed, op)
    return dict(zip(names, packed.tolist(), strict=True))
