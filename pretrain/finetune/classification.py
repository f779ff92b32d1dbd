"""A task of GLUE as a problem: one class, or one score, for a sentence or a pair of sentences."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain.finetune import metrics
from pretrain.finetune.batches import Row, by_length, padded
from pretrain.finetune.glue_data import Examples
from pretrain.finetune.problem import Evaluation
from pretrain.finetune.tasks import GlueTask

if TYPE_CHECKING:
    from torch import Tensor, nn


class Classification:
    """Tokenizes the examples: [CLS] a [SEP], or [CLS] a [SEP] b [SEP], of which the longer sentence is cut first."""

    predictions_suffix = ".tsv"

    def __init__(self, task: GlueTask, train: Examples, evaluated: dict[str, Examples], tokenizer: Any, max_seq_length: int) -> None:
        self._task, self._evaluated, self._pad_id = task, evaluated, tokenizer.pad_token_id
        self.rows = _rows(train, tokenizer, max_seq_length)
        self._eval_rows = {split: _rows(examples, tokenizer, max_seq_length) for split, examples in evaluated.items()}
        self.counts = {"train": len(self.rows)} | {f"dev{split}": len(rows) for split, rows in self._eval_rows.items()}
        self.fingerprint = _fingerprint([train, *evaluated.values()])

    def loss(self, model: "nn.Module", batch: "dict[str, Tensor]", rows: list[Row]) -> "Tensor":
        """Cross entropy of the classes in nats, or the squared error of the scores."""
        import torch
        import torch.nn.functional as F

        logits = model(**batch).logits.float()  # (rows, classes), (rows, 1) for a score
        targets = torch.tensor([row.target for row in rows], device=logits.device)
        return F.cross_entropy(logits, targets) if self._task.labels else F.mse_loss(logits.squeeze(-1), targets.float())

    def evaluate(self, model: "nn.Module", device: Any, batch_size: int) -> Evaluation:
        scores: dict[str, float] = {}
        lines = ["split\tindex\tlabel\tprediction"]
        for split, examples in self._evaluated.items():
            found = self._predict(model, self._eval_rows[split], device, batch_size)
            for name in self._task.metrics:
                scores[f"{name}{split}"] = metrics.GLUE[name](examples.labels, found)
            pairs = zip(examples.labels, found.tolist(), strict=True)
            lines += [f"dev{split}\t{index}\t{self._named(true)}\t{self._named(value)}" for index, (true, value) in enumerate(pairs)]
        return Evaluation(scores, "\n".join(lines) + "\n")

    def _predict(self, model: "nn.Module", rows: list[Row], device: Any, batch_size: int) -> np.ndarray:
        """Classes (int64), or scores (float64), of all rows."""
        import torch

        found = np.zeros(len(rows), dtype=np.int64 if self._task.labels else np.float64)
        for places in by_length(rows, batch_size):
            batch = padded([rows[place] for place in places], self._pad_id)
            with torch.inference_mode():
                logits = model(**{name: tensor.to(device) for name, tensor in batch.items()}).logits.float().cpu().numpy()
            found[places] = logits.argmax(-1) if self._task.labels else logits[:, 0]
        return found

    def _named(self, value: float) -> str:
        return self._task.labels[int(value)] if self._task.labels else repr(value)


def _rows(examples: Examples, tokenizer: Any, max_seq_length: int) -> list[Row]:
    columns = [list(column) for column in zip(*examples.texts, strict=True)]
    found = tokenizer(*columns, truncation="longest_first", max_length=max_seq_length)
    types = found.get("token_type_ids", [None] * len(examples.labels))
    return [Row(*row) for row in zip(found["input_ids"], types, examples.labels, strict=True)]


def _fingerprint(splits: list[Examples]) -> str:
    content = json.dumps([[examples.texts, examples.labels] for examples in splits])
    return hashlib.sha256(content.encode()).hexdigest()
