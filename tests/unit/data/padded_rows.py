"""Back from a micro-batch to the padded rows that it was made of."""

import numpy as np
import torch

from pretrain.data.batches import Batch


def padded_rows(batch: dict[str, torch.Tensor], predictions: int, pad: int = 0) -> Batch:
    """The fields of `Batches.batch`, from the tokens laid end to end, with `predictions` target slots per sample."""
    batch = {name: tensor.numpy() for name, tensor in batch.items()}
    fields = {name: batch[name] for name in ("next_sentence_label", "labels") if name in batch}
    if "cu_seqlens" not in batch:
        fields |= {name: batch[name] for name in ("input_ids", "token_type_ids") if name in batch}
        num_samples, length = batch["input_ids"].shape
        starts = np.arange(num_samples + 1) * length
    else:
        num_samples, length = batch["attention_mask"].shape
        starts = batch["cu_seqlens"].astype(np.int64)
        places = np.concatenate([np.arange(stop - start) + row * length for row, (start, stop) in enumerate(zip(starts, starts[1:]))])
        assert np.array_equal(places, batch["token_index"]) and np.array_equal(places % length, batch["position_ids"][0])
        fields["attention_mask"] = batch["attention_mask"].astype(np.int64)
        for name, filler in (("input_ids", pad), ("token_type_ids", 0)):
            rows = np.full(num_samples * length, filler, dtype=np.int64)
            rows[places] = batch[name][0]
            fields[name] = rows.reshape(num_samples, length)
    if "masked_index" in batch:
        sample = np.searchsorted(starts, batch["masked_index"], side="right") - 1
        slot = np.arange(len(sample)) - np.searchsorted(sample, sample)
        columns = {
            "masked_positions": (batch["masked_index"] - starts[sample], 0),
            "masked_labels": (batch["masked_labels"], -100),
            "replaced_by_mask": (batch["replaced_by_mask"], False),
        }
        for name, (values, nothing) in columns.items():
            fields[name] = np.full((num_samples, predictions), nothing, dtype=values.dtype)
            fields[name][sample, slot] = values
    return fields
