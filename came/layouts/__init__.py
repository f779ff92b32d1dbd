"""Where a parameter's elements live: one protocol for every way of sharding, so that nothing else branches on the stage.

DeepSpeed replaces the parameters that an optimizer was built with by flat tensors of its own. A layout maps such a `handed` tensor
back to the model's parameters: which interval of which parameter lies where in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from came.interval import Interval


class LayoutError(RuntimeError):
    """The optimizer was handed tensors that it cannot map, element by element, to the model's parameters."""


@dataclass(frozen=True)
class Shard:
    """What one handed tensor holds of one model parameter."""

    param: Any
    """The model's parameter, never the flat tensor that stands for it; a tensor, with what its sharding has hung on it."""
    interval: Interval
    offset: int
    """First element of the interval in the handed tensor."""
    group: Any
    """Ranks that hold the rest of the parameter; None when this rank holds all of it."""

    def of(self, handed: Tensor) -> Tensor:
        """This shard's elements of a tensor laid out like the handed one: a (numel,) view."""
        return local(handed).view(-1)[self.offset : self.offset + self.interval.numel]


class Layout(Protocol):
    """One way of sharding. `params` are the model's parameters of one group, in the order given to the optimizer."""

    name: str
    partitioned: bool
    """Whether each element is updated by one rank (else every rank updates them all)."""

    def handed(self, group_params: Sequence[Tensor], params: Sequence[Tensor]) -> list[Tensor]:
        """The tensors that this rank updates for the group; `group_params` is what the group now lists."""

    def locate(self, handed: Tensor, group_params: Sequence[Tensor], params: Sequence[Tensor]) -> list[Shard]:
        """The shards of one handed tensor. Raises LayoutError where it cannot be mapped.

        A parameter that is split over ranks is listed on every rank of its group, with an empty interval where a rank holds nothing
        of it, because all of them take part in its reductions; one that lies wholly on a rank is listed there alone.
        """

    def model_weights(self, shard: Shard) -> Tensor:
        """The model's own copy of the shard's elements, (numel,), in the model's dtype."""

    def groups(self, params: Sequence[Tensor]) -> list[Any]:
        """Process groups whose ranks step together, because they share parameters; the same order on every rank."""

    def push_masters(self, engine_optimizer: Any) -> None:
        """Copy restored master weights into the model's own weights."""


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor: all of it, except of a DTensor."""
    return getattr(tensor, "_local_tensor", tensor)


def is_dtensor(tensor: Tensor) -> bool:
    return hasattr(tensor, "_local_tensor")


def layout_of(group_params: Sequence[Tensor], params: Sequence[Tensor]) -> Layout:
    """The layout that the parameters of one group are in by now."""
    from came.layouts import fsdp2, whole, zero3, zero12

    _refuse_what_hides_the_shape(params)
    if zero3.applies(params):
        return zero3.LAYOUT
    if zero12.applies(params):
        return zero12.LAYOUT
    if any(is_dtensor(param) for param in group_params):
        return fsdp2.LAYOUT
    return whole.layout(group_params, params)


def _refuse_what_hides_the_shape(params: Sequence[Tensor]) -> None:
    """Raises LayoutError for parameters that are themselves pieces of others, in schemes that say so."""
    for param in params:
        if getattr(param, "_fsdp_flattened", False):
            raise LayoutError(
                "FSDP1 (FullyShardedDataParallel) hands flat parameters; supported: FSDP2 (torch.distributed.fsdp.fully_shard)"
            )
        if getattr(param, "tensor_model_parallel", False) or getattr(param, "model_parallel", False):
            raise LayoutError(
                f"a parameter of shape {tuple(param.shape)} is one rank's part under tensor parallelism, which is not supported"
            )


def verify(layout: Layout, handed: Tensor, shards: Sequence[Shard]) -> None:
    """Compare each shard of the master weights with the model's weights, at the model's dtype. Raises LayoutError."""
    for shard in shards:
        if shard.interval.numel == 0:
            continue
        theirs = layout.model_weights(shard)
        ours = shard.of(local(handed.detach()).reshape(-1)).to(theirs.dtype).to(theirs.device)
        if not ((ours == theirs) | (ours.isnan() & theirs.isnan())).all():
            interval = shard.interval
            raise LayoutError(
                f"{layout.name}: the weights handed to the optimizer for elements [{interval.start}, {interval.stop}) of a parameter of "
                f"shape {interval.shape} are not the model's; this way of sharding is not supported"
            )
