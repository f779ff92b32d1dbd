"""What one optimizer step sends between the ranks.

Gradients travel in fp32: once per step at stages 0 and 1, with every micro-step at stages 2 and 3. DeepSpeed's ZeRO-2 all-reduces them as
ZeRO-1 does, and keeps the rank's slice; ZeRO-3 reduce-scatters them. Weights are gathered after the update in their own dtype; at ZeRO-3
in every micro-step instead, as `gathering.py` says, and after the update those that are too small to be cut.

Two figures of each: the payload is the size of what is combined or gathered, as it is handed to the collective; sent is what one rank puts
on the wire for it with the ring algorithm, 2 (W - 1) / W of the payload for an all-reduce and (W - 1) / W for a reduce-scatter or an
all-gather. Left out are scalars (norms, checks for overflow, counts of targets).
"""

from dataclasses import dataclass

from came.kernels import option_without_kernel
from came.layouts.foretold import flat_partition, slice_of_each
from came.lockstep import Traffic
from came.optimizer import ShardedOptimizer
from came.rules.came import CAME
from came.traffic import Group, fused_reductions, reductions
from pretrain.plan.deepspeed import Zero
from pretrain.plan.gathering import Gathering, persistent
from pretrain.plan.memory import gradients_together, stepped_groups
from pretrain.plan.sizes import Sizes

_GRADIENT_BYTES = 4
"""Of one element on the way: see `pretrain/engine_settings.py`."""


@dataclass(frozen=True)
class Communication:
    """Bytes of one optimizer step, of one rank."""

    gradients_payload_bytes: int
    gradients_sent_bytes: int
    weights_payload_bytes: int
    weights_sent_bytes: int
    optimizer_calls: int
    """All-reduces of the optimizer: its sums over parameters that are split over ranks."""
    optimizer_payload_bytes: int
    optimizer_sent_bytes: int

    @property
    def sent_bytes(self) -> int:
        return self.gradients_sent_bytes + self.weights_sent_bytes + self.optimizer_sent_bytes

    @property
    def optimizer_share(self) -> float:
        """What the optimizer's reductions add, as a share of the gradients' bytes."""
        return self.optimizer_payload_bytes / self.gradients_payload_bytes


def communication(
    sizes: Sizes, optimizer: ShardedOptimizer, zero: Zero, world_size: int, micro_steps: int, gathered: Gathering | None
) -> Communication:
    """Of a step of `micro_steps`; `gathered` is what ZeRO-3 gathers in a micro-step."""
    ring = (world_size - 1) / world_size
    gradients = _GRADIENT_BYTES * _reduced(sizes, zero, world_size) * (micro_steps if zero.stage >= 2 else 1)
    weights = zero.weight_bytes * _gathered(sizes, zero, world_size, micro_steps, gathered)
    own = traffic(sizes, optimizer, zero, world_size)
    return Communication(
        gradients_payload_bytes=gradients,
        gradients_sent_bytes=round(gradients * ring * (1 if zero.stage == 3 else 2)),
        weights_payload_bytes=weights,
        weights_sent_bytes=round(weights * ring),
        optimizer_calls=own.calls,
        optimizer_payload_bytes=own.num_bytes,
        optimizer_sent_bytes=round(own.num_bytes * ring * 2),
    )


def traffic(sizes: Sizes, optimizer: ShardedOptimizer, zero: Zero, world_size: int) -> Traffic:
    """The optimizer's reductions of one update, on GPUs; CAME's by its kernels, where it has some."""
    hyper = optimizer.param_groups
    calls = [[Group(hyper[place], shapes) for place, shapes in groups] for groups in stepped_groups(sizes, zero, world_size)]
    if is_fused(optimizer, zero):
        return fused_reductions(calls, world_size, zero.stage)
    return reductions(optimizer.rule, calls, world_size, zero.stage)


def is_fused(optimizer: ShardedOptimizer, zero: Zero) -> bool:
    """Whether the update is CAME's fused step on a GPU."""
    if not isinstance(optimizer, CAME) or optimizer.implementation == "eager" or zero.offload:
        return False
    return not any(option_without_kernel(group) for group in optimizer.param_groups)


def _reduced(sizes: Sizes, zero: Zero, world_size: int) -> int:
    """Elements of the gradient as they travel: padded where they lie in padded buffers."""
    if zero.stage == 3:
        return sum(slice_of_each(shape, world_size) * world_size for shape in sizes.shapes)
    if zero.by_bf16_optimizer:
        return sum(gradients_together(sizes, zero, world_size))
    return sizes.parameters


def _gathered(sizes: Sizes, zero: Zero, world_size: int, micro_steps: int, gathered: Gathering | None) -> int:
    """Elements of the weights that are gathered: in each micro-step, and after the update."""
    if world_size == 1 or zero.stage == 0:
        return 0
    if gathered is None:
        return sum(flat_partition(group, world_size) * world_size for group in sizes.groups)

    def padded(place: int) -> int:
        return slice_of_each((sizes.numels[place],), world_size) * world_size

    return micro_steps * sum(map(padded, gathered.gathered)) + sum(map(padded, persistent(sizes, zero)))
