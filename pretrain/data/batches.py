"""Positions -> a batch of samples, a pure vectorised function: the same sample at the same position, whoever asks.

Which source a sample comes from follows from its position; sample order, pairs and masks follow from (seed, position) alone. For validation
the order is that of the text and the draws follow from a constant, so that every run is measured on the same masks.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from pretrain.config.schema import ClmConfig, MlmConfig, MlmNspConfig, ObjectiveConfig
from pretrain.data.blocks import Blocks, SeparatedBlocks
from pretrain.data.masking import Masker
from pretrain.data.mixture import Mixture, mixture_of
from pretrain.data.pairs import Pairs, PairSampler
from pretrain.data.prepared import Prepared, PreparedSource
from pretrain.data.ranges import ranges
from pretrain.data.sampler import PlainOrder, ShuffledOrder
from pretrain.errors import UserError

Batch = dict[str, np.ndarray]

_VALIDATION_SEED = 20_230_704


class SampleMaker(ABC):
    """Makes the samples of one source under one objective.

    Attributes:
        num_anchors: samples per epoch of this source.
        sequence_length: T, tokens per sample.
    """

    def __init__(self, num_anchors: int, sequence_length: int) -> None:
        self.num_anchors, self.sequence_length = num_anchors, sequence_length

    @abstractmethod
    def make(self, anchors: np.ndarray, positions: np.ndarray) -> Batch:
        """The samples of these anchors at these positions of the run, both int64 [n]."""


class Batches:
    """Samples of one split: every source's, mixed.

    Attributes:
        num_anchors: positions before any source begins anew.
        sequence_length: T, tokens per sample.
    """

    def __init__(self, makers: Sequence[SampleMaker], orders: Sequence[ShuffledOrder | PlainOrder], mixture: Mixture) -> None:
        self._makers, self._orders, self.mixture = makers, orders, mixture
        self.num_anchors = mixture.positions_within([maker.num_anchors for maker in makers])
        self.sequence_length = makers[0].sequence_length

    def batch(self, positions: np.ndarray) -> Batch:
        """The samples at these positions (int64 [n], from 0 on, without end): arrays with n rows, by field."""
        positions = np.asarray(positions, dtype=np.int64)
        sources, draws = self.mixture.deal(positions)
        batch: Batch = {}
        for number, (maker, order) in enumerate(zip(self._makers, self._orders, strict=True)):
            rows = np.flatnonzero(sources == number)
            if rows.size == len(positions):
                return maker.make(order.anchors(draws), positions)
            if rows.size:
                for field, values in maker.make(order.anchors(draws[rows]), positions[rows]).items():
                    batch.setdefault(field, np.empty((len(positions), *values.shape[1:]), values.dtype))[rows] = values
        return batch

    def by_source(self) -> "list[Batches]":
        """Each source for itself, all of it within its `num_anchors` whatever its weight."""
        sources = zip(self.mixture.names, self._makers, self._orders, strict=True)
        return [Batches([maker], [order], Mixture({name: 1.0})) for name, maker, order in sources]

    def drawn(self, position: int) -> dict[str, int]:
        """Samples drawn from each source before `position`."""
        return dict(zip(self.mixture.names, self.mixture.drawn(position), strict=True))

    def epochs(self, position: int) -> dict[str, float]:
        """Passes over each source before `position`."""
        return {name: drawn / maker.num_anchors for (name, drawn), maker in zip(self.drawn(position).items(), self._makers, strict=True)}


def make_batches(
    prepared: Prepared, split: str, objective: ObjectiveConfig, max_seq_length: int, seed: int, mixture: Mixture | None = None
) -> Batches:
    """The samples of `split` ("train" or "valid"), from all sources as `mixture` says (none: as the corpus was prepared).

    Fields of a batch, int64 unless said otherwise, T = max_seq_length, P = masking.max_predictions(objective, T):

    - mlm_nsp, mlm: input_ids, token_type_ids [n, T]; masked_positions [n, P], masked_labels [n, P] (-100 where unused), replaced_by_mask
      bool [n, P]; mlm_nsp also attention_mask [n, T] (0 where padded) and next_sentence_label [n] (0: B follows A).
    - clm: input_ids, labels [n, T], labels being the next tokens.

    Raises:
        UserError: a source's split holds less than one sample.
    """
    draw_seed = seed if split == "train" else _VALIDATION_SEED
    makers = [_maker(source, split, prepared, objective, max_seq_length, draw_seed) for source in prepared.sources]
    orders = [ShuffledOrder(maker.num_anchors, seed) if split == "train" else PlainOrder(maker.num_anchors) for maker in makers]
    return Batches(makers, orders, mixture or mixture_of(prepared))


def _maker(
    source: PreparedSource, split: str, prepared: Prepared, objective: ObjectiveConfig, max_seq_length: int, draw_seed: int
) -> SampleMaker:
    text = {"train": source.train, "valid": source.valid}[split]
    if isinstance(objective, MlmNspConfig):
        pairs = PairSampler(text, max_seq_length - 3, objective.short_sequence_probability, draw_seed)
        anchored: PairSampler | SeparatedBlocks | Blocks = pairs
    elif isinstance(objective, MlmConfig):
        anchored = SeparatedBlocks(text, max_seq_length - 2, prepared.special.sep)
    else:
        assert isinstance(objective, ClmConfig), f"no samples for objective.kind={objective.kind}"
        anchored = Blocks(text, max_seq_length)
    if anchored.num_anchors == 0:
        of_source = f" of {source.name}" if len(prepared.sources) > 1 else ""
        raise UserError(
            f"the {split} text{of_source} is below one sample: {len(text.tokens)} tokens for data.max_seq_length={max_seq_length}; "
            "give more text or a smaller data.max_seq_length"
        )
    if isinstance(anchored, Blocks):
        return ClmSamples(anchored)
    masker = Masker(objective, max_seq_length, prepared, draw_seed)
    if isinstance(anchored, SeparatedBlocks):
        return MlmSamples(anchored, prepared, masker)
    return PairSamples(anchored, prepared, text.tokens, masker)


class PairSamples(SampleMaker):
    """[CLS] A [SEP] B [SEP] [PAD] ..., masked."""

    def __init__(self, sampler: PairSampler, prepared: Prepared, tokens: np.ndarray, masker: Masker) -> None:
        super().__init__(sampler.num_anchors, sampler.max_tokens + 3)
        self._sampler, self._special, self._masker = sampler, prepared.special, masker
        self._tokens = np.asarray(tokens)

    def make(self, anchors: np.ndarray, positions: np.ndarray) -> Batch:
        pairs = self._sampler.draw(anchors, positions)
        input_ids, maskable, in_second, num_real = self._assemble(pairs)
        masked = self._masker.apply(input_ids, maskable, num_real, positions)
        attention_mask = (np.arange(self.sequence_length) < num_real[:, None]).astype(np.int64)
        fields = {"input_ids": input_ids, "token_type_ids": in_second.astype(np.int64), "attention_mask": attention_mask}
        return fields | masked | {"next_sentence_label": pairs.label}

    def _assemble(self, pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Token ids int64 [n, T], where they are text and where they are B with its [SEP] (bool [n, T]), and lengths int64 [n]."""
        column = np.arange(self.sequence_length)
        first_separator = (1 + pairs.a_length)[:, None]
        last_separator = first_separator + 1 + pairs.b_length[:, None]
        in_a = (column >= 1) & (column < first_separator)
        in_second = (column > first_separator) & (column <= last_separator)
        maskable = in_a | (in_second & (column != last_separator))
        starts, lengths = np.stack([pairs.a_start, pairs.b_start], axis=1), np.stack([pairs.a_length, pairs.b_length], axis=1)
        input_ids = np.full(maskable.shape, self._special.pad, dtype=np.int64)
        input_ids[maskable] = self._tokens[ranges(starts.ravel(), lengths.ravel())]
        input_ids[:, 0] = self._special.cls
        np.put_along_axis(input_ids, first_separator, self._special.sep, axis=1)
        np.put_along_axis(input_ids, last_separator, self._special.sep, axis=1)
        return input_ids, maskable, in_second, last_separator[:, 0] + 1


class MlmSamples(SampleMaker):
    """[CLS] block [SEP], masked; no padding."""

    def __init__(self, blocks: SeparatedBlocks, prepared: Prepared, masker: Masker) -> None:
        super().__init__(blocks.num_anchors, blocks.length + 2)
        self._blocks, self._special, self._masker = blocks, prepared.special, masker

    def make(self, anchors: np.ndarray, positions: np.ndarray) -> Batch:
        blocks, is_text = self._blocks.read(anchors)
        num_samples = len(anchors)
        input_ids = np.full((num_samples, self.sequence_length), self._special.sep, dtype=np.int64)
        input_ids[:, 0] = self._special.cls
        input_ids[:, 1:-1] = blocks
        maskable = np.zeros(input_ids.shape, dtype=bool)
        maskable[:, 1:-1] = is_text
        masked = self._masker.apply(input_ids, maskable, np.full(num_samples, self.sequence_length), positions)
        return {"input_ids": input_ids, "token_type_ids": np.zeros_like(input_ids)} | masked


class ClmSamples(SampleMaker):
    """A block and its next tokens."""

    def __init__(self, blocks: Blocks) -> None:
        super().__init__(blocks.num_anchors, blocks.length)
        self._blocks = blocks

    def make(self, anchors: np.ndarray, positions: np.ndarray) -> Batch:
        input_ids, labels = self._blocks.read(anchors)
        return {"input_ids": input_ids, "labels": labels}
