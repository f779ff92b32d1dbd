"""One step of CAME over a set of handed tensors on one device, launch by launch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from came.kernels import fields
from came.kernels.batch import Batch, Traits
from came.kernels.finalise import AVERAGE, REDUCE, WHOLE
from came.kernels.tables import ALIGNMENT_BYTES, Geometry, Piece
from came.layouts import is_dtensor, local
from came.lockstep import Traffic
from came.observation import Observer
from came.optimizer import Place, clip_scale
from came.state import StateViews

Packs = Sequence[tuple[Any, Tensor]]
"""Process groups, each with this rank's part of what is to be summed over it, in place."""


@dataclass
class Member:
    """A handed tensor that takes part in a step."""

    place: Place
    state: dict[str, Tensor]
    """As it is allocated for the handed tensor; see `came.state`."""
    hyper: dict[str, Any]
    """Its parameter group."""

    def row(self) -> tuple[int, int]:
        """What its hyper-parameters depend on: the group and, where there is bias correction, the number of this update."""
        return id(self.hyper), int(self.state["step"]) if self.hyper["bias_correction"] else 0


class Plan:
    """Tables for a set of members, built once and used as long as their tensors stay where they are.

    Gradients may lie elsewhere at every step: their addresses are copied to the device when they have changed, like the
    hyper-parameters, and the host waits for neither.
    """

    def __init__(
        self,
        members: Sequence[Member],
        gradients: Sequence[Tensor],
        geometry: Geometry,
        views_of: Callable[[Place], list[StateViews]],
        numbers: Mapping[int, int],
    ) -> None:
        """`views_of` gives the state of a place's shards, `numbers` a parameter's number in the optimizer's order by its `id`."""
        device = gradients[0].device
        self._watched = _Watched(_tensors(members))
        self._bias_corrected = any(member.hyper["bias_correction"] for member in members)
        self._alignment = [gradient.data_ptr() % ALIGNMENT_BYTES for gradient in gradients]
        self._dtypes = [gradient.dtype for gradient in gradients]
        rows = [member.row() for member in members]
        order = list(dict.fromkeys(rows))
        self._row_of_member = [order.index(row) for row in rows]
        self._gradients = _Mirror(torch.empty(len(members), dtype=torch.int64, device=device), "the gradients' addresses")
        self._hyper = _Mirror(torch.empty(len(order), fields.HYPER.value, dtype=torch.float32, device=device), "the hyper-parameters")
        self._one = torch.ones(1, dtype=torch.float32, device=device)

        pieces: dict[Traits, list[Piece]] = {}
        for number, member in enumerate(members):
            weights = local(member.place.handed.detach()).view(-1)
            for shard, state in zip(member.place.shards, views_of(member.place), strict=True):
                traits = Traits(weights.dtype, gradients[number].dtype, state["exp_avg"].dtype, shard.group)
                row, of_parameter = self._row_of_member[number], numbers[id(shard.param)]
                piece = Piece(shard.interval, number, shard.offset, shard.of(weights), state, row, of_parameter)
                pieces.setdefault(traits, []).append(piece)
        addresses = [gradient.data_ptr() for gradient in gradients]
        made = (geometry, addresses, self._gradients.there, self._hyper.there)
        self.batches = [Batch(found, traits, *made) for traits, found in pieces.items()]
        self._whole = [batch for batch in self.batches if batch.traits.process_group is None]
        self._split = [batch for batch in self.batches if batch.traits.process_group is not None]

    @property
    def counts(self) -> bool:
        """Whether an update depends on its number, so that no two are the same to a CUDA graph."""
        return self._bias_corrected or any(batch.rounds for batch in self.batches)

    def fits(self, members: Sequence[Member], gradients: Sequence[Tensor]) -> bool:
        """Whether everything that the tables speak of is where it was."""
        rows = [member.row() for member in members]
        order = {row: number for number, row in enumerate(dict.fromkeys(rows))}
        return (
            self._watched.same(_tensors(members))
            and self._row_of_member == [order[row] for row in rows]
            and self._dtypes == [gradient.dtype for gradient in gradients]
            and self._alignment == [gradient.data_ptr() % ALIGNMENT_BYTES for gradient in gradients]
        )

    def run(
        self,
        members: Sequence[Member],
        gradients: Sequence[Tensor],
        scale: Tensor | None,
        max_norm: float | None,
        observer: Observer | None,
        traffic: Traffic,
    ) -> None:
        """One update of the members along `gradients`, this rank's parts of them, row-major.

        All gradients are multiplied by `scale`, or so that their norm over all members is at most `max_norm`, for which all must be whole.
        """
        begun: list[Any] = []
        for packs in self.launches(members, gradients, scale, max_norm, observer):
            if packs is not None:
                begun = _all_reduce(packs, traffic)
            else:
                for reduction in begun:
                    reduction.wait()  # the device's stream does; on a CPU the host

    def launches(
        self,
        members: Sequence[Member],
        gradients: Sequence[Tensor],
        scale: Tensor | None = None,
        max_norm: float | None = None,
        observer: Observer | None = None,
    ) -> Iterator[Packs | None]:
        """The launches of one update. Yields what is to be summed over ranks from now on, and None where the sums must be there.

        Parameters that are split over ranks wait for two reductions; the others, which need none, are updated meanwhile.
        """
        self._gradients.set([gradient.data_ptr() for gradient in gradients])
        self._set_hyper(members)
        for batch in self.batches:
            drawn = [members[piece.handed] for piece in batch.pieces] if batch.rounds else []
            batch.draw([int(member.state["step"]) for member in drawn], [member.hyper["seed"] for member in drawn])
        scale = self._one if scale is None else scale.to(self._one).view(1)

        for batch in self._split:
            batch.square_sums()
            batch.finalise_squares(REDUCE.value, scale)
        yield [(batch.traits.process_group, batch.packed_squares) for batch in self._split]
        for batch in self._whole:
            batch.square_sums(norm=max_norm is not None)
        if max_norm is not None:
            squares = torch.stack([batch.tile_sums.sum() for batch in self._whole]).sum()
            scale = clip_scale(squares.sqrt(), max_norm).to(self._one).view(1)
        for batch in self._whole:
            batch.finalise_squares(WHOLE.value, scale)
            batch.update_sums(scale)
        yield None

        for batch in self._split:
            batch.finalise_squares(AVERAGE.value, scale)
            batch.update_sums(scale)
            batch.finalise_residuals(REDUCE.value)
        yield [(batch.traits.process_group, batch.packed_residuals) for batch in self._split]
        for batch in self._whole:
            batch.finalise_residuals(WHOLE.value)
            batch.move(scale, observer is not None)
        yield None

        for batch in self._split:
            batch.finalise_residuals(AVERAGE.value)
            batch.move(scale, observer is not None)
        if observer is not None:
            self._show(members, observer)

    def _set_hyper(self, members: Sequence[Member]) -> None:
        rows: dict[int, Member] = dict(zip(self._row_of_member, members, strict=True))
        self._hyper.set([hyper_row(rows[row].hyper, rows[row].row()[1]) for row in range(len(rows))])
        for row, member in rows.items():
            lr = member.hyper["lr"]
            if _on_device(lr):
                self._hyper.there[row, fields.LR.value].copy_(lr)

    def _show(self, members: Sequence[Member], observer: Observer) -> None:
        """What the eager rule would show."""
        hyper = dict(zip(self._row_of_member, members, strict=True))
        for batch in self.batches:
            observer.direction_squares(batch.direction_sums.sum(), sum(piece.interval.numel for piece in batch.pieces))
            divisors = 1 / batch.clip_scales
            for number, piece in enumerate(batch.pieces):
                observer.clipping(piece.interval, divisors[number])
                if piece.interval.factored:
                    row, col = piece.state["exp_avg_res_row"], piece.state["exp_avg_res_col"]
                    member = hyper[piece.row]
                    factor = hyper_row(member.hyper, member.row()[1])[fields.MATRIX_FACTOR.value]
                    observer.confidence(piece.interval, (row / row.mean(-1, keepdim=True)).rsqrt_() * factor, col.rsqrt())


class _Watched:
    """Tensors, and where they were when they were first seen. Looked at before every step, so it is quick about it."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._tensors = tensors
        self._locals = [local(tensor) for tensor in tensors]
        self._sharded = [tensor for tensor in tensors if is_dtensor(tensor)]
        self._locals_of_sharded = [local(tensor) for tensor in self._sharded]
        self._addresses = [tensor.data_ptr() for tensor in self._locals]

    def same(self, tensors: list[Tensor]) -> bool:
        """Whether these are the tensors, and lie where they did."""
        return (
            len(tensors) == len(self._tensors)
            and all(map(is_, tensors, self._tensors))
            and all(map(is_, map(local, self._sharded), self._locals_of_sharded))
            and [tensor.data_ptr() for tensor in self._locals] == self._addresses
        )


class _Mirror:
    """A small table on the device that is rewritten when its values on the host have changed; the host does not wait."""

    def __init__(self, there: Tensor, what: str) -> None:
        self.there, self._what = there, what
        self._here: list | None = None

    def set(self, values: list) -> None:
        if values == self._here:
            return
        if self.there.is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                f"{self._what} have changed since the last step, which a CUDA graph cannot record: take a step on the same gradients "
                "before capturing, and give the learning rate as a tensor on the device if it is to change between replays"
            )
        here = torch.tensor(values, dtype=self.there.dtype)
        self.there.copy_(here.pin_memory() if self.there.is_cuda else here, non_blocking=True)
        self._here = values


def hyper_row(hyper: dict[str, Any], step: int) -> list[float]:
    """A group's hyper-parameters in the order of `fields`, worked out in double precision; a learning rate that is on the device is left
    0. `step` is the number of this update where there is bias correction, else 0."""
    bias1, bias2, bias3 = (1 - beta**step if hyper["bias_correction"] else 1.0 for beta in hyper["betas"])
    beta1, beta2, beta3 = hyper["betas"]
    values = {
        fields.LR: 0.0 if _on_device(hyper["lr"]) else float(hyper["lr"]),
        fields.WEIGHT_DECAY: hyper["weight_decay"],
        fields.BETA1: beta1,
        fields.WEIGHT1: 1 - beta1,
        fields.WEIGHT2: 1 - beta2,
        fields.WEIGHT3: 1 - beta3,
        fields.EPS1: hyper["eps"][0],
        fields.EPS2: hyper["eps"][1],
        fields.CLIP_THRESHOLD: hyper["clip_threshold"],
        fields.SIGN: -1.0 if hyper["maximize"] else 1.0,
        fields.UPDATE_FACTOR: bias2**0.5,
        fields.MATRIX_FACTOR: bias3**0.5 / bias1,
        fields.VECTOR_FACTOR: 1 / bias1,
    }
    row = [0.0] * fields.HYPER.value
    for name, value in values.items():
        row[name.value] = float(value)
    return row


def _on_device(value: Any) -> bool:
    return torch.is_tensor(value) and value.is_cuda


def _tensors(members: Sequence[Member]) -> list[Tensor]:
    """Those whose addresses the tables hold, and the step counts."""
    found = [member.place.handed for member in members]
    for member in members:
        found.extend(member.state.values())
    return found


def _all_reduce(packs: Packs, traffic: Traffic) -> list[Any]:
    """Begin to add the packs up over their process groups; returns what is to be waited for. Of vectors alone the first is empty."""
    packs = [(group, pack) for group, pack in packs if pack.numel()]
    for _, pack in packs:
        traffic.calls += 1
        traffic.num_bytes += pack.numel() * pack.element_size()
    return [dist.all_reduce(pack, dist.ReduceOp.SUM, group=group, async_op=True) for group, pack in packs]
