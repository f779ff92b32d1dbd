"""Micro-batches hold the samples' tokens and targets, all of them and nothing else."""

import numpy as np
import pytest
import torch

from pretrain.config.schema import ClmConfig, MlmConfig, MlmNspConfig
from pretrain.data.batches import make_batches
from pretrain.data.masking import max_predictions
from pretrain.data.micro_batches import micro_batches
from tests.unit.data.corpora import random_documents, synthetic
from tests.unit.data.padded_rows import padded_rows

LENGTH = 32
OBJECTIVES = {"mlm_nsp": MlmNspConfig(), "mlm": MlmConfig(), "clm": ClmConfig()}
CORPUS = synthetic(random_documents(60, seed=1))


@pytest.mark.parametrize("micro_batch_size", [1, 3, 24])
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_the_padded_rows_can_be_had_back(kind: str, micro_batch_size: int) -> None:
    wanted = make_batches(CORPUS, "train", OBJECTIVES[kind], LENGTH, seed=0).batch(np.arange(24))
    predictions = 0 if kind == "clm" else max_predictions(OBJECTIVES[kind], LENGTH)
    parts = [
        padded_rows({name: torch.from_numpy(values) for name, values in batch.items()}, predictions)
        for batch in micro_batches(wanted, micro_batch_size)
    ]
    assert len(parts) == 24 // micro_batch_size
    for name, values in wanted.items():
        assert np.array_equal(np.concatenate([part[name] for part in parts]), values), name


def test_no_place_is_spent_on_padding_or_empty_targets() -> None:
    fields = make_batches(CORPUS, "train", MlmNspConfig(), LENGTH, seed=0).batch(np.arange(24))
    found = list(micro_batches(fields, 8))
    assert sum(batch["input_ids"].size for batch in found) == fields["attention_mask"].sum() < 24 * LENGTH
    assert sum(batch["masked_labels"].size for batch in found) == (fields["masked_labels"] != -100).sum()
    assert all((batch["masked_labels"] != -100).all() for batch in found)


def test_full_rows_stay_rows() -> None:
    fields = make_batches(CORPUS, "train", MlmConfig(), LENGTH, seed=0).batch(np.arange(8))
    (batch,) = micro_batches(fields, 8)
    assert batch["input_ids"].shape == (8, LENGTH) and "cu_seqlens" not in batch
    assert np.array_equal(batch["input_ids"].ravel()[batch["masked_index"]], fields["input_ids"][_places(fields)])


def _places(fields: dict) -> tuple[np.ndarray, np.ndarray]:
    rows, slots = np.nonzero(fields["masked_labels"] != -100)
    return rows, fields["masked_positions"][rows, slots]
