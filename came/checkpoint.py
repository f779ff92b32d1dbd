"""Master weights and optimizer state by parameter name, free of world size and ZeRO stage (torch.distributed.checkpoint).

Every master and every elementwise state is one logical 1-D tensor of which a rank holds an interval; row and column factors are
plain tensors, the same on each rank that has them. What was saved by any number of ranks at any stage loads at any other.
"""

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties, TensorStorageMetadata
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

from came.layouts import LayoutError
from came.optimizer import ShardedOptimizer
from came.rules import Kind
from came.safe_reading import SafeReader

MASTER = "master"
"""Name under which a parameter's fp32 weights are kept, beside the names of its state."""

State = dict[str, Tensor]
"""`name/master` and `name/<state>`: what this rank holds of each parameter."""


def save(optimizer: ShardedOptimizer, names: Mapping[Any, str], folder: Path) -> None:
    """Write masters and state into `folder`; a collective call. `names` gives each model parameter its name."""
    write(state_dict(optimizer, names), folder)


def write(state: State, folder: Path, group: Any = None) -> None:
    """Write what `state_dict` or `stage` returned; a collective call over `group` (None: all ranks), whose backend must reach the CPU.

    Raises OSError on every rank where one could not write.
    """
    try:
        with _plain_errors():
            dcp.save(state, storage_writer=dcp.FileSystemWriter(folder), process_group=group)
    except RuntimeError as error:
        if "inline_container" in str(error):  # how torch's own writer says that a file took less than it was given
            raise OSError("a file could not be written whole; the disk is full or failing") from error
        raise


def load(optimizer: ShardedOptimizer, names: Mapping[Any, str], folder: Path) -> None:
    """Restore masters and state in place; a collective call. The model's own weights have to be brought into line afterwards
    (`Layout.push_masters`). Nothing in the folder is executed; raises UnsafeCheckpoint where it asks for it."""
    _read(state_dict(optimizer, names), folder)


def load_weights(optimizer: ShardedOptimizer, names: Mapping[Any, str], folder: Path, leave: Collection[str] = ()) -> None:
    """Restore the masters alone, likewise: a new run that begins with the weights of another. Parameters named in `leave` keep theirs."""
    wanted = {f"{name}/{MASTER}" for name in names.values() if name not in leave}
    _read({key: value for key, value in state_dict(optimizer, names).items() if key in wanted}, folder)


def load_masters(folder: Path) -> dict[str, Tensor]:
    """Every parameter's whole fp32 weights, flat (numel,), in this process alone."""
    return {key.removesuffix(f"/{MASTER}"): value for key, value in load_whole(folder, only_masters=True).items()}


def load_whole(folder: Path, only_masters: bool = False) -> State:
    """Masters and, unless `only_masters`, the optimizer's state of all ranks, in this process alone: masters and elementwise
    state flat (numel,), factors (matrices, rows) and (matrices, cols), steps ()."""
    state = {key: torch.empty(size, dtype=dtype) for key, (size, dtype) in sizes(folder).items() if _is_master(key) or not only_masters}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)  # as asked for
        _read(state, folder, no_dist=True)
    return state


def sizes(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and dtype of everything in a checkpoint, from its metadata."""
    entries = SafeReader(folder).read_metadata().state_dict_metadata
    return {key: (entry.size, entry.properties.dtype) for key, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}


def stage(state: State, buffers: State) -> State:
    """A copy of `state` in the host's memory, which a thread may write while training goes on.

    `buffers` is what an earlier call returned, or empty: its memory is used again. Waits for the device.
    """
    on_gpu = any(value.is_cuda for value in state.values())
    copied = {key: _copied(value, buffers.get(key), on_gpu) for key, value in state.items()}
    if on_gpu:
        torch.cuda.synchronize()
    return copied


def _copied(value: Tensor, buffer: Tensor | None, pinned: bool) -> Tensor:
    if isinstance(value, IntervalTensor):
        local = _copied(value.local, buffer.local if isinstance(buffer, IntervalTensor) else None, pinned)
        return IntervalTensor(local, value.start, value.numel())
    if buffer is None:
        buffer = torch.empty(value.shape, dtype=value.dtype, pin_memory=pinned)
    return buffer.copy_(value.detach(), non_blocking=True)


def _is_master(key: str) -> bool:
    return key.endswith(f"/{MASTER}")


def _read(state: State, folder: Path, no_dist: bool = False) -> None:
    reader = SafeReader(folder)
    reader.read_metadata()  # `dcp.load` would hide why it cannot
    with _plain_errors():
        dcp.load(state, storage_reader=reader, no_dist=no_dist)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """The error itself, where torch.distributed.checkpoint wraps those of all ranks in what is not even an `Exception`."""
    try:
        yield
    except CheckpointException as wrapped:
        _, (error, _) = min(wrapped.failures.items())
        raise error from wrapped if isinstance(error, Exception) else RuntimeError(str(wrapped))


def state_dict(optimizer: ShardedOptimizer, names: Mapping[Any, str]) -> State:
    """What this rank holds, as views: loading into them restores the optimizer."""
    found: State = {}
    for place in optimizer.places():
        if not place.handed.is_contiguous():
            raise LayoutError(f"a parameter of shape {tuple(place.handed.shape)} is not contiguous; checkpoints need it to be")
        for shard, state in zip(place.shards, optimizer.state_views(place), strict=True):
            name, interval = names[shard.param], shard.interval
            kinds = optimizer.rule.state(interval)
            if interval.numel:
                found[f"{name}/{MASTER}"] = IntervalTensor(shard.of(place.handed.detach()), interval.start, interval.total)
            for key, value in state.items():
                if kinds[key] is Kind.STEP:
                    found[f"{name}/{key}"] = value
                elif interval.numel:
                    local = kinds[key] is Kind.LOCAL
                    found[f"{name}/{key}"] = IntervalTensor(value, interval.start, interval.total) if local else value
    return found


class IntervalTensor(torch.Tensor):
    """A 1-D tensor of `total` elements of which this process holds those from `start` on; the rest is elsewhere.

    It implements what torch.distributed.checkpoint asks of a sharded tensor (its `_Checkpointable` protocol), and the operations
    that staging for an asynchronous save needs.
    """

    local: Tensor
    start: int

    @staticmethod
    def __new__(cls, local: Tensor, start: int, total: int) -> "IntervalTensor":
        return torch.Tensor._make_wrapper_subclass(cls, (total,), dtype=local.dtype, device=local.device)

    def __init__(self, local: Tensor, start: int, total: int) -> None:
        self.local, self.start = local, start

    def __repr__(self) -> str:  # type: ignore[override]
        return f"IntervalTensor([{self.start}, {self.start + self.local.numel()}) of {self.numel()})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        tensor, operation = args[0], function._schema.name.removeprefix("aten::")
        if operation in ("detach", "alias"):
            return cls(tensor.local.detach(), tensor.start, tensor.numel())
        if operation == "clone":
            return cls(tensor.local.detach().clone(), tensor.start, tensor.numel())
        if operation in ("empty_like", "new_empty"):
            empty = torch.empty_like(tensor.local, device=(kwargs or {}).get("device"))
            return cls(empty, tensor.start, tensor.numel())
        if operation == "copy_":
            tensor.local.copy_(args[1].local)
            return tensor
        raise NotImplementedError(f"{function} on an IntervalTensor")

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        return [ChunkStorageMetadata(torch.Size([self.start]), torch.Size([self.local.numel()]))]

    def __create_write_items__(self, fqn: str, obj: Any) -> list[WriteItem]:
        (chunk,) = self.__create_chunk_list__()
        properties = TensorProperties(dtype=self.local.dtype)
        data = TensorWriteData(chunk=chunk, properties=properties, size=torch.Size([self.numel()]))
        return [WriteItem(index=MetadataIndex(fqn, chunk.offsets), type=WriteItemType.SHARD, tensor_data=data)]

    def __get_tensor_shard__(self, index: MetadataIndex) -> Tensor:
        return self.local
