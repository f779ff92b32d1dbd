"""FSDP2 (`fully_shard`): each parameter is a DTensor of which a rank holds a block along one dimension, or all of it."""

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor

from came.interval import Interval
from came.layouts import LayoutError, Shard, is_dtensor, local


def interval_of(shape: tuple[int, ...], dim: int, size: int, offset: int) -> Interval:
    """The block of `size` entries from `offset` on along dimension `dim` of a parameter of `shape`.

    Raises LayoutError where the block is not one interval of the row-major elements, as when it is made of columns.
    """
    if prod(shape[:dim]) != 1:
        raise LayoutError(
            f"FSDP2: a parameter of shape {shape} is sharded along dimension {dim}, which cuts it into blocks that are not contiguous; "
            "supported: sharding along the first dimension (Shard(0))"
        )
    stride = prod(shape[dim + 1 :])
    return Interval(shape, offset * stride, (offset + size) * stride) if size * stride else Interval(shape, 0, 0)


class Fsdp2:
    """The optimizer is handed the model's own parameters. Those that are DTensors are replicated or cut along one dimension of the
    mesh, whose group completes the reductions; in a mesh of (replicate, shard) that is the shard group alone."""

    name = "FSDP2"
    partitioned = True

    def handed(self, group_params: Sequence[Tensor], params: Sequence[Any]) -> list[Tensor]:
        return list(group_params)

    def locate(self, handed: Any, group_params: Sequence[Tensor], params: Sequence[Any]) -> list[Shard]:
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

        if not handed.numel():
            return []
        shape = tuple(handed.shape)
        mesh_dims = _sharded_mesh_dims(handed)
        if not mesh_dims:
            return [Shard(handed, Interval.whole(shape), 0, None)]
        (mesh_dim,) = mesh_dims
        mesh, dim = handed.device_mesh, handed.placements[mesh_dim].dim
        sizes, offsets = compute_local_shape_and_global_offset(handed.shape, mesh, handed.placements)
        interval = interval_of(shape, dim, sizes[dim], offsets[dim])
        if interval.numel != local(handed).numel():
            raise LayoutError(
                f"FSDP2: this rank holds {local(handed).numel()} elements of a parameter of shape {shape} where its placement "
                f"{handed.placements} gives {interval.numel}"
            )
        group = mesh.get_group(mesh_dim) if mesh.size(mesh_dim) > 1 else None
        return [Shard(handed, interval, 0, group)]

    def model_weights(self, shard: Shard) -> Tensor:
        return local(shard.param).detach().reshape(-1)

    def groups(self, params: Sequence[Any]) -> list[Any]:
        meshes = dict.fromkeys(param.device_mesh for param in params if is_dtensor(param))
        return [mesh.get_group(mesh_dim) for mesh in meshes for mesh_dim in range(mesh.ndim)]

    def push_masters(self, engine_optimizer: Any) -> None:
        """Nothing to do: the masters are the model's weights."""


LAYOUT = Fsdp2()


def _sharded_mesh_dims(param: Any) -> list[int]:
    """The mesh dimension along which a parameter is cut, or none. Raises LayoutError for placements that are not supported."""
    from torch.distributed.tensor import Shard as ShardAlong  # takes a second to import, unless there are DTensors

    if not is_dtensor(param):
        return []
    sharded = []
    for mesh_dim, placement in enumerate(param.placements):
        if type(placement) is ShardAlong:  # not a _StridedShard, FSDP2 over tensor parallelism
            sharded.append(mesh_dim)
        elif not placement.is_replicate():
            raise LayoutError(f"FSDP2: the placement {placement!r} of a parameter of shape {tuple(param.shape)} is not supported")
    if len(sharded) > 1:
        raise LayoutError(
            f"FSDP2: a parameter of shape {tuple(param.shape)} is sharded along {len(sharded)} dimensions of the mesh, "
            f"{param.placements}; supported: one, beside dimensions that replicate"
        )
    return sharded
