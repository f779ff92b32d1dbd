"""FSDP2 (`fully_shard`): each parameter is a DTensor of which a rank holds a block along one dimension, or all of it."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor

from came.interval import Interval
from came.layouts import LayoutError, Shard, is_dtensor, local
from came.momentum import pieces


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


def intervals_of(shape: tuple[int, ...], dim: int, ranks: int) -> list[Interval]:
    """What each of `ranks` ranks holds of a parameter that is cut along dimension `dim`: equal blocks, as far as they go."""
    block = -(-shape[dim] // ranks)
    cuts = [min(rank * block, shape[dim]) for rank in range(ranks + 1)]
    return [interval_of(shape, dim, stop - start, start) for start, stop in pairwise(cuts)]


@lru_cache(maxsize=None)
def most_pieces(shape: tuple[int, ...], dim: int, ranks: int) -> int:
    """Pieces (`came.momentum.pieces`) on the rank that has most of them."""
    return max(map(pieces, intervals_of(shape, dim, ranks)))


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


# Momentum's scales, of which each rank has as many as there are pieces in what it holds -----------------------------------------------


def by_rank_shape(param: Any) -> tuple[int, int]:
    """(ranks that share the parameter, most pieces that one of them has)."""
    shape, mesh_dims = tuple(param.shape), _sharded_mesh_dims(param)
    if not mesh_dims:
        return 1, pieces(Interval.whole(shape))
    (mesh_dim,) = mesh_dims
    ranks = param.device_mesh.size(mesh_dim)
    return ranks, most_pieces(shape, param.placements[mesh_dim].dim, ranks)


def zeros_by_rank(param: Any) -> Tensor:
    """A float32 DTensor of `by_rank_shape`, of which each rank holds one row, on the device where it holds the parameter."""
    from torch.distributed.tensor import DTensor, Replicate
    from torch.distributed.tensor import Shard as ShardAlong

    sharded, device = _sharded_mesh_dims(param), local(param).device
    placements = [ShardAlong(0) if mesh_dim in sharded else Replicate() for mesh_dim in range(param.device_mesh.ndim)]
    row = torch.zeros(1, by_rank_shape(param)[1], device=device)
    return DTensor.from_local(row, param.device_mesh, placements, run_check=False).to(device)


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
