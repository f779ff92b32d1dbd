"""Masked language modelling: which tokens are predicted, and what stands in their place (Devlin et al., 2019)."""

import math

import numpy as np

from pretrain.config.schema import MlmConfig
from pretrain.data.prepared import Prepared
from pretrain.data.random_numbers import Stream, integers_below, random_bits, uniform

IGNORED_LABEL = -100
_MASK_SHARE, _RANDOM_SHARE = 0.8, 0.1


def max_predictions(objective: MlmConfig, max_seq_length: int) -> int:
    """Predicted tokens per sequence at most: `objective.max_predictions`, else mask_probability of the length, rounded up."""
    if objective.max_predictions is not None:
        return min(objective.max_predictions, max_seq_length)
    return math.ceil(objective.mask_probability * max_seq_length - 1e-9)


class Masker:
    """Chooses and replaces tokens; the choice depends on (seed, position) alone."""

    def __init__(self, objective: MlmConfig, max_seq_length: int, prepared: Prepared, seed: int) -> None:
        self.mask_probability = objective.mask_probability
        self.max_predictions = max_predictions(objective, max_seq_length)
        self.mask_id = prepared.special.mask
        self.seed = seed
        self._ordinary_ids = np.setdiff1d(np.arange(prepared.vocab_size), prepared.special.ids())

    def apply(self, input_ids: np.ndarray, maskable: np.ndarray, num_real: np.ndarray, positions: np.ndarray) -> dict[str, np.ndarray]:
        """Mask a batch.

        Args:
            input_ids: int64 [n, T], contiguous, changed in place.
            maskable: bool [n, T], the tokens that may be chosen: no [CLS], [SEP], [PAD].
            num_real: int64 [n], tokens of each sequence with its [CLS] and [SEP], on which the number to predict is reckoned.
            positions: int64 [n], the samples' positions in the run.

        Returns:
            masked_positions int64 [n, P], ascending, 0 where unused; masked_labels int64 [n, P], the original ids, -100 where unused;
            replaced_by_mask bool [n, P], true where [MASK] now stands.
        """
        columns, used = self._choose(maskable, num_real, positions)
        flat_ids = input_ids.reshape(-1)
        places = columns + input_ids.shape[1] * np.arange(len(input_ids))[:, None]
        labels = flat_ids[places]
        kind = uniform(random_bits(self.seed, positions, Stream.REPLACEMENT_KIND, self.max_predictions))
        by_mask = used & (kind < _MASK_SHARE)
        by_random = used & (kind >= _MASK_SHARE) & (kind < _MASK_SHARE + _RANDOM_SHARE)
        token_bits = random_bits(self.seed, positions, Stream.REPLACEMENT_TOKEN, self.max_predictions)[by_random]
        flat_ids[places[by_mask]] = self.mask_id
        flat_ids[places[by_random]] = self._ordinary_ids[integers_below(token_bits, len(self._ordinary_ids))]
        return {"masked_positions": columns, "masked_labels": np.where(used, labels, IGNORED_LABEL), "replaced_by_mask": by_mask}

    def _choose(self, maskable: np.ndarray, num_real: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Columns chosen uniformly without replacement (int64 [n, P], ascending, 0 where unused), and which are used (bool [n, P]).

        Every maskable token draws a lot that carries its column in the lowest bits; the smallest lots win.
        """
        length = maskable.shape[1]
        column_mask = np.uint64((1 << (length - 1).bit_length()) - 1)
        lots = random_bits(self.seed, positions, Stream.MASKED_POSITION, length)
        lots &= ~column_mask
        lots |= np.arange(length, dtype=np.uint64)
        lots[~maskable] = np.iinfo(np.uint64).max
        lots.partition(self.max_predictions - 1, axis=1)
        winners = (np.sort(lots[:, : self.max_predictions], axis=1) & column_mask).astype(np.int64)
        wanted = np.maximum(1, np.rint(self.mask_probability * num_real)).astype(np.int64)
        num_predicted = np.minimum(np.minimum(wanted, self.max_predictions), maskable.sum(axis=1))
        used = np.arange(self.max_predictions) < num_predicted[:, None]
        columns = np.sort(np.where(used, winners, length), axis=1)
        return np.where(used, columns, 0), used
