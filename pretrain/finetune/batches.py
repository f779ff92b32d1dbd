"""Tokenized examples, the order in which they are trained on, and batches of them padded to their longest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_POOL_BATCHES = 50
"""Examples of so many batches are sorted by length among themselves: little padding, and batches that still are random."""


@dataclass(frozen=True)
class Row:
    """One sequence for the model."""

    input_ids: list[int]
    token_type_ids: list[int] | None
    """None for a model without."""
    target: int | float | tuple[int, int] | None
    """A class, a score, the first and the last token of an answer; None where nothing is trained."""


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The examples of one epoch in batches, each example once; follows from (lengths, batch_size, seed, epoch) alone."""
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), batch_size * _POOL_BATCHES):
        pool = order[start : start + batch_size * _POOL_BATCHES]
        pool = pool[np.argsort(np.asarray(lengths)[pool], kind="stable")]
        batches += [pool[begin : begin + batch_size].tolist() for begin in range(0, len(pool), batch_size)]
    return [batches[place] for place in generator.permutation(len(batches))]


def by_length(rows: Sequence[Row], batch_size: int) -> Iterator[list[int]]:
    """All rows in batches of nearly equal length, the longest first, so that memory is known from the beginning."""
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place].input_ids))
    yield from (order[start : start + batch_size] for start in range(0, len(order), batch_size))


def padded(rows: Sequence[Row], pad_id: int) -> "dict[str, Tensor]":
    """What the model takes: int64 [rows, longest]; padding is not attended to."""
    import torch

    longest = max(len(row.input_ids) for row in rows)

    def filled(values: list[list[int]], filler: int) -> "Tensor":
        return torch.tensor([[*some, *[filler] * (longest - len(some))] for some in values])

    batch = {
        "input_ids": filled([row.input_ids for row in rows], pad_id),
        "attention_mask": filled([[1] * len(row.input_ids) for row in rows], 0),
    }
    if rows[0].token_type_ids is not None:
        batch["token_type_ids"] = filled([row.token_type_ids or [] for row in rows], 0)
    return batch
