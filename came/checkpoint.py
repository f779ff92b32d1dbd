"""Master weights and optimizer state by parameter name, free of world size and ZeRO stage (torch.distributed.checkpoint).

Every master and every elementwise state is one logical 1-D tensor of which a rank holds an interval; row and column factors are
plain tensors, the same on each rank that has them. What was saved by any number of ranks at any stage loads at any other.

Momentum in 8 bits (`came.momentum`) is saved as its codes, an elementwise state like any other, and a plain tensor of scales for what each
rank holds of the parameter, under a name that says which elements those are: `name/exp_avg_scale[0:4096]`. Pieces that the loading rank
has too come back to the bit: uncut blocks always do, and so does everything at the same stage and number of ranks. Where a block is cut
otherwise, its values are encoded again, to the nearest code: each is off by at most half the gap between the codes beside it, 1/127 of its
piece's scale at the very top. The momentum's dtype is not converted.
"""

import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties, TensorStorageMetadata
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

from came.interval import Interval, overlap
from came.layouts import LayoutError
from came.momentum import MOMENTUM, SCALE, bounds, encode_, from_codes, same_code
from came.optimizer import ShardedOptimizer
from came.rules import Kind
from came.safe_reading import SafeReader
from came.state import kept

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
    (`Layout.push_masters`). Nothing in the folder is executed; raises UnsafeCheckpoint where it asks for it, and ValueError where the
    optimizer keeps its momentum in another dtype."""
    state, saved = state_dict(optimizer, names), sizes(folder)
    for key in state:
        if key.endswith(f"/{MOMENTUM}") and key in saved and not same_code(saved[key][1], state[key].dtype):
            raise ValueError(f"{folder} has {key} in {saved[key][1]}, and this optimizer keeps it in {state[key].dtype}")
    cut_otherwise = {held: state.pop(held.key) for held in _scales(state) if held.key not in saved}
    theirs: dict[str, list[Held]] = {held.name: [] for held in cut_otherwise}
    for held in _scales(saved):
        theirs.get(held.name, []).append(held)
    scales = {held.key: torch.empty(saved[held.key][0]) for held in chain.from_iterable(theirs.values())}
    _read(state | scales, folder)
    for mine, scale in cut_otherwise.items():
        momentum = state[mine.momentum]
        assert isinstance(momentum, IntervalTensor)
        values = _decoded(momentum.local, mine, {held: scales[held.key] for held in theirs[mine.name]})
        encode_({MOMENTUM: momentum.local, SCALE: scale}, values, momentum.interval, None)


def load_weights(optimizer: ShardedOptimizer, names: Mapping[Any, str], folder: Path, leave: Collection[str] = ()) -> None:
    """Restore the masters alone, likewise: a new run that begins with the weights of another. Parameters named in `leave` keep theirs."""
    wanted = {f"{name}/{MASTER}" for name in names.values() if name not in leave}
    _read({key: value for key, value in state_dict(optimizer, names).items() if key in wanted}, folder)


def load_masters(folder: Path) -> dict[str, Tensor]:
    """Every parameter's whole fp32 weights, flat (numel,), in this process alone."""
    return {key.removesuffix(f"/{MASTER}"): value for key, value in load_whole(folder, only_masters=True).items()}


def load_whole(folder: Path, only_masters: bool = False) -> State:
    """Masters and, unless `only_masters`, the optimizer's state of all ranks, in this process alone: masters and elementwise
    state flat (numel,), factors (matrices, rows) and (matrices, cols), steps (). Momentum in 8 bits is decoded to float32."""
    state = {key: torch.empty(size, dtype=dtype) for key, (size, dtype) in sizes(folder).items() if _is_master(key) or not only_masters}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)  # as asked for
        _read(state, folder, no_dist=True)
    scales: dict[str, dict[Held, Tensor]] = {}
    for held in _scales(state):
        scales.setdefault(held.name, {})[held] = state.pop(held.key)
    for name, of_all in scales.items():
        whole = Held(name, 0, max(held.stop for held in of_all))
        state[whole.momentum] = _decoded(state[whole.momentum], whole, of_all)
    return state


def sizes(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and dtype of everything in a checkpoint, from its metadata."""
    entries = SafeReader(folder).read_metadata().state_dict_metadata
    return {key: (entry.size, entry.properties.dtype) for key, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}


class Held(NamedTuple):
    """The elements [start, stop) of a parameter, whose momentum in 8 bits a rank holds or held."""

    name: str
    start: int
    stop: int

    @property
    def key(self) -> str:
        """Of the scales of its pieces, (pieces,)."""
        return f"{self.name}/{SCALE}[{self.start}:{self.stop}]"

    @property
    def momentum(self) -> str:
        return f"{self.name}/{MOMENTUM}"


_SCALE_KEY = re.compile(rf"(.+)/{SCALE}\[(\d+):(\d+)\]", re.DOTALL)


def _scales(keys: Iterable[str]) -> list[Held]:
    """What the scales among `keys` are of."""
    found = map(_SCALE_KEY.fullmatch, keys)
    return [Held(match[1], int(match[2]), int(match[3])) for match in found if match]


def kind_of(key: str) -> str:
    """What a tensor of a checkpoint holds of its parameter: `master`, or the name of its state."""
    return key.rpartition("/")[2].partition("[")[0]


def _decoded(codes: Tensor, mine: Held, scales: Mapping[Held, Tensor]) -> Tensor:
    """The values of `mine` from their codes (numel,) and the parameter's scales, of whatever they were saved as."""
    values = torch.empty_like(codes, dtype=torch.float32)
    for theirs, scale in scales.items():
        start, stop = overlap(mine.start, mine.stop, theirs.start, theirs.stop)
        if start < stop:
            lengths = bounds(Interval((theirs.stop,), theirs.start, theirs.stop)).clamp(start, stop).diff()
            part = slice(start - mine.start, stop - mine.start)
            values[part] = from_codes(codes[part], scale.repeat_interleave(lengths).to(codes.device))
    return values


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
            kinds = kept(optimizer.rule, interval)
            if interval.numel:
                found[f"{name}/{MASTER}"] = IntervalTensor(shard.of(place.handed.detach()), interval.start, interval.total)
            for key, value in state.items():
                if kinds[key] is Kind.STEP:
                    found[f"{name}/{key}"] = value
                elif kinds[key] is Kind.PIECE and interval.numel:
                    found[Held(name, interval.start, interval.stop).key] = value
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

    @property
    def interval(self) -> Interval:
        return Interval((self.numel(),), self.start, self.start + self.local.numel())

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
