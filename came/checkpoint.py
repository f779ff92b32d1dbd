"""Master weights and optimizer state by parameter name, free of world size and ZeRO stage (torch.distributed.checkpoint).

Every master and every elementwise state is one logical 1-D tensor of which a rank holds an interval; row and column factors are
plain tensors, the same on each rank that has them. What was saved by any number of ranks at any stage loads at any other.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties, TensorStorageMetadata
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

from came.layouts import LayoutError
from came.optimizer import ShardedOptimizer
from came.rules import Kind

MASTER = "master"
"""Name under which a parameter's fp32 weights are kept, beside the names of its state."""


def save(optimizer: ShardedOptimizer, names: Mapping[Any, str], folder: Path) -> None:
    """Write masters and state into `folder`; a collective call. `names` gives each model parameter its name."""
    dcp.save(state_dict(optimizer, names), checkpoint_id=folder)


def load(optimizer: ShardedOptimizer, names: Mapping[Any, str], folder: Path) -> None:
    """Restore masters and state in place; a collective call. The model's own weights have to be brought into line afterwards
    (`Layout.push_masters`)."""
    dcp.load(state_dict(optimizer, names), checkpoint_id=folder)


def load_masters(folder: Path) -> dict[str, Tensor]:
    """Every parameter's whole fp32 weights, flat (numel,), in this process alone."""
    metadata = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    masters = {
        key: torch.empty(entry.size)
        for key, entry in metadata.items()
        if key.endswith(f"/{MASTER}") and isinstance(entry, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)  # as asked for
        dcp.load(masters, checkpoint_id=folder, no_dist=True)
    return {key.removesuffix(f"/{MASTER}"): value for key, value in masters.items()}


def state_dict(optimizer: ShardedOptimizer, names: Mapping[Any, str]) -> dict[str, Tensor]:
    """`name/master` and `name/<state>` for what this rank holds, as views: loading into them restores the optimizer."""
    found: dict[str, Tensor] = {}
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
