"""Samples -> the micro-batches that a model takes: no padding, no empty targets, so that no operation is spent on either.

Sequences of different lengths are laid end to end as one row of tokens, with `cu_seqlens` saying where each begins. All counts
are known on the host, so that nothing ever waits for the device to learn a shape.
"""

from collections.abc import Iterator

import numpy as np

from pretrain.data.batches import Batch
from pretrain.data.masking import IGNORED_LABEL

_SAMPLE_BY_SAMPLE = ("next_sentence_label", "labels")


def micro_batches(fields: Batch, micro_batch_size: int) -> Iterator[Batch]:
    """Cut the samples of `Batches.batch`, a multiple of micro_batch_size in number, into micro-batches.

    With n samples of T tokens, of which `tokens` are real, and `targets` masked positions that are to be predicted, a micro-batch holds

    - where sequences are padded: input_ids, token_type_ids, position_ids int64 [1, tokens]; cu_seqlens int32 [n + 1], where each
      sequence begins among the tokens, and where the last one ends; attention_mask bool [n, T], where the tokens were in the padded
      rows; token_index int64 [tokens], the same as indices into n * T places
    - else: input_ids and, for BERT, token_type_ids int64 [n, T]
    - BERT: masked_index int64 [targets], indices into the tokens; masked_labels int64 and replaced_by_mask bool [targets]
    - next_sentence_label int64 [n] and GPT-2's labels int64 [n, T], as they are
    """
    num_samples, length = fields["input_ids"].shape
    edges = np.arange(0, num_samples + 1, micro_batch_size)
    tokens = _Unpadded(fields) if "attention_mask" in fields else _Full(fields)
    targets = _Targets(fields, tokens.starts) if "masked_labels" in fields else None
    for first, last in zip(edges[:-1], edges[1:]):
        batch = tokens.cut(first, last)
        if targets is not None:
            batch |= targets.cut(first, last)
        yield batch | {name: fields[name][first:last] for name in _SAMPLE_BY_SAMPLE if name in fields}


class _Full:
    """Rows without padding."""

    def __init__(self, fields: Batch) -> None:
        num_samples, length = fields["input_ids"].shape
        self.starts = np.arange(num_samples + 1) * length
        self._rows = {name: fields[name] for name in ("input_ids", "token_type_ids") if name in fields}

    def cut(self, first: int, last: int) -> Batch:
        return {name: rows[first:last] for name, rows in self._rows.items()}


class _Unpadded:
    """The real tokens of padded rows, end to end."""

    def __init__(self, fields: Batch) -> None:
        self._mask = fields["attention_mask"].astype(bool)
        self._length = self._mask.shape[1]
        self._places = np.flatnonzero(self._mask)
        self.starts = np.concatenate([[0], np.cumsum(self._mask.sum(axis=1))])
        self._tokens = {name: fields[name].ravel()[self._places] for name in ("input_ids", "token_type_ids")}
        self._tokens["position_ids"] = self._places % self._length

    def cut(self, first: int, last: int) -> Batch:
        here = slice(self.starts[first], self.starts[last])
        return {name: values[None, here] for name, values in self._tokens.items()} | {
            "cu_seqlens": (self.starts[first : last + 1] - self.starts[first]).astype(np.int32),
            "attention_mask": self._mask[first:last],
            "token_index": self._places[here] - first * self._length,
        }


class _Targets:
    """The masked positions that are to be predicted, without the unused ones."""

    def __init__(self, fields: Batch, token_starts: np.ndarray) -> None:
        used = fields["masked_labels"] != IGNORED_LABEL
        self._token_starts = token_starts
        self._starts = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
        self._index = (token_starts[:-1, None] + fields["masked_positions"])[used]
        self._of_targets = {name: fields[name][used] for name in ("masked_labels", "replaced_by_mask")}

    def cut(self, first: int, last: int) -> Batch:
        here = slice(self._starts[first], self._starts[last])
        index = {"masked_index": self._index[here] - self._token_starts[first]}
        return index | {name: values[here] for name, values in self._of_targets.items()}
