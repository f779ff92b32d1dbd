"""Bytes that one rank holds, by part, from shapes alone: those that `pretrain/memory.py` measures, and the most there is at any time."""

from collections.abc import Sequence
from dataclasses import dataclass

from came.layouts.foretold import Shape, flat_partition, handed, slice_of_each, sub_groups
from came.memory import state_bytes_of_rank
from came.rules import Rule
from pretrain.plan.activations import Activations
from pretrain.plan.deepspeed import BUCKET_ELEMENTS, Zero
from pretrain.plan.gathering import Gathering, persistent
from pretrain.plan.sizes import Sizes

_TEMPORARIES = 3
"""fp32 tensors as large as this rank's share of the largest parameter that a rule makes while it updates it."""


@dataclass(frozen=True)
class Held:
    """Bytes on one rank, to the byte; each is what a run logs under the same name (`pretrain/memory.py`)."""

    weights_bytes: int
    """Parameters and buffers, between the steps."""
    masters_bytes: int
    grads_bytes: int
    """When the step begins."""
    optimizer_bytes: int
    communication_bytes: int
    """Buckets that are kept from step to step."""
    host_bytes: int
    """How much of it lies in the host's memory on a machine with a GPU."""


@dataclass(frozen=True)
class Memory:
    """Bytes of the rank that needs most."""

    held: Held
    activations_bytes: int
    """Of one micro-batch, at the worst moment: see `pretrain/plan/activations.py`."""
    transient_bytes: int
    """At the peak, beside what is held and the activations: gradients that are larger while they are added up, buckets, copies in which
    gradients travel, gathered weights or, if it is larger, what the update makes in the place of the activations."""
    peak_bytes: int
    """The most on the GPU at one time: the sum of all, without what is in the host's memory."""


def held(sizes: Sizes, rule: Rule, zero: Zero, world_size: int, rank: int) -> Held:
    """What rank `rank` holds."""
    share = updated_elements(sizes, zero, world_size)
    masters = 0 if zero.stage == 0 and zero.precision == "fp32" else 4 * share
    grads, state = _grads_bytes(sizes, zero, world_size, rank), _state_bytes(sizes, rule, zero, world_size, rank)
    staging = 2 * zero.weight_bytes * sizes.largest if zero.offload and zero.stage < 3 else 0  # one on either side
    return Held(
        weights_bytes=zero.weight_bytes * _weights(sizes, zero, world_size) + sizes.buffers_bytes,
        masters_bytes=masters,
        grads_bytes=grads,
        optimizer_bytes=state,
        communication_bytes=4 * zero.reduce_bucket_size if zero.stage == 3 else staging,
        host_bytes=masters + grads + state + staging // 2 if zero.offload else 0,
    )


def memory(sizes: Sizes, rule: Rule, zero: Zero, world_size: int, kept: Activations, gathered: Gathering | None) -> Memory:
    """Of a whole step; `gathered` at ZeRO-3."""

    def differing(rank: int) -> int:
        return _state_bytes(sizes, rule, zero, world_size, rank) + _grads_bytes(sizes, zero, world_size, rank)

    # At ZeRO-1/2 the ranks hold different parameters; else none holds more than the first.
    found = held(sizes, rule, zero, world_size, max(range(world_size), key=differing) if zero.stage in (1, 2) else 0)
    on_gpu = found.weights_bytes + found.masters_bytes + found.grads_bytes + found.optimizer_bytes + found.communication_bytes
    on_gpu -= found.host_bytes
    grads = 0 if zero.offload else found.grads_bytes
    backward = _backward_bytes(sizes, zero, world_size, found) + (zero.weight_bytes * gathered.most_elements if gathered else 0)
    step = _step_bytes(sizes, zero, world_size, found)
    transient = max(backward, step - kept.most_bytes) - grads
    return Memory(found, kept.most_bytes, transient, on_gpu + kept.most_bytes + transient)


def stepped_groups(sizes: Sizes, zero: Zero, world_size: int) -> list[list[tuple[int, Sequence[Shape]]]]:
    """For each call of the optimizer's `step()` what it updates: parameter groups or, at ZeRO-3, sub-groups of them, each with its group's
    place in `Sizes.groups`."""
    groups = list(enumerate(sizes.groups))
    if zero.stage == 3:
        return [[(place, part)] for place, group in groups for part in sub_groups(group, world_size, zero.sub_group_size)]
    return [groups] if zero.stage == 0 or zero.by_bf16_optimizer else [[group] for group in groups]


def updated_elements(sizes: Sizes, zero: Zero, world_size: int) -> int:
    """Elements that one rank updates, padding included."""
    if zero.stage == 0:
        return sizes.parameters
    if zero.stage == 3:
        return sum(slice_of_each(shape, world_size) for shape in sizes.shapes)
    return sum(flat_partition(group, world_size) for group in sizes.groups)


def _weights(sizes: Sizes, zero: Zero, world_size: int) -> int:
    """Elements of the weights that one rank keeps: at ZeRO-3 its slices and, whole, with the padding of their last gathering, the
    parameters that are too small to be cut."""
    share = updated_elements(sizes, zero, world_size)
    if zero.stage < 3:
        return share * world_size if zero.stage else share
    whole = [sizes.numels[place] for place in persistent(sizes, zero)] if world_size > 1 else []
    return share + sum(slice_of_each((numel,), world_size) * world_size for numel in whole)


def _state_bytes(sizes: Sizes, rule: Rule, zero: Zero, world_size: int, rank: int) -> int:
    calls = stepped_groups(sizes, zero, world_size)
    return sum(state_bytes_of_rank(rule, group, world_size, zero.stage, rank) for groups in calls for _, group in groups)


def _grads_bytes(sizes: Sizes, zero: Zero, world_size: int, rank: int) -> int:
    item, share = zero.accumulation_bytes, updated_elements(sizes, zero, world_size)
    if zero.stage in (0, 3):
        return item * share + (4 * share if zero.offload else 0)  # the masters' beside those that are added up
    if zero.by_bf16_optimizer:
        return item * share * world_size
    if zero.keeps_slices_apart:
        return 4 * share
    return item * sum(_whole_gradients(group, world_size, rank) for group in sizes.groups)


def _whole_gradients(shapes: Sequence[Shape], world_size: int, rank: int) -> int:
    """Elements of the parameters that a rank has a part of."""
    return sum(interval.total for tensor in handed(shapes, world_size, 1, rank) for interval in tensor.intervals if interval.numel)


def _backward_bytes(sizes: Sizes, zero: Zero, world_size: int, found: Held) -> int:
    """Gradients and buckets on the GPU in the backward pass; a bucket is there in full, however small the model."""
    whole, item, weight = sizes.parameters, zero.accumulation_bytes, zero.weight_bytes
    bucket, travelling = zero.reduce_bucket_size, min(whole, zero.reduce_bucket_size)
    buffers = 2 if zero.overlap_comm else 1
    newest = weight * sizes.largest
    if zero.stage == 0:
        return item * whole + newest
    if zero.by_bf16_optimizer:
        return found.grads_bytes + newest
    if zero.stage == 1:
        unsummed = weight * whole if item != weight else 0
        return item * whole + unsummed + buffers * item * bucket + 4 * travelling
    if zero.stage == 2:
        slices = 0 if zero.offload else found.grads_bytes
        return slices + buffers * weight * bucket + (weight + (4 if weight < 4 else 0)) * travelling
    return (0 if zero.offload else found.grads_bytes) + 4 * travelling + newest


def _step_bytes(sizes: Sizes, zero: Zero, world_size: int, found: Held) -> int:
    """Gradients and copies on the GPU from the end of the last backward pass to the end of the update."""
    if zero.offload:
        return zero.weight_bytes * updated_elements(sizes, zero, world_size)
    largest = sizes.largest if zero.stage == 0 else min(sizes.largest, updated_elements(sizes, zero, world_size))
    largest = -(-sizes.largest // world_size) if zero.stage == 3 else largest
    update = 4 * _TEMPORARIES * largest
    if zero.stage == 0 or zero.by_bf16_optimizer:
        travelling = 4 * max(gradients_together(sizes, zero, world_size))
        return found.grads_bytes + max(update, travelling)
    return found.grads_bytes + 4 * updated_elements(sizes, zero, world_size) * (zero.stage < 3) + update


def gradients_together(sizes: Sizes, zero: Zero, world_size: int) -> list[int]:
    """Elements of each all-reduce where no ZeRO optimizer reduces the gradients (stage 0, BF16_Optimizer): tensors are taken until there
    are more than `BUCKET_ELEMENTS`."""
    if zero.stage == 0:
        tensors = list(sizes.numels)
    else:
        tensors = [flat_partition(group, world_size) * world_size for group in sizes.groups]
    found, filled = [], 0
    for numel in tensors:
        filled += numel
        if filled > BUCKET_ELEMENTS:
            found.append(filled)
            filled = 0
    return [*found, filled] if filled else found
