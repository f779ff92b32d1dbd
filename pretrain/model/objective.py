"""What is trained on: a transformers model together with its head and loss, as one module.

`forward(batch)` returns a plain dict of loss SUMS over the valid targets of the micro-batch, never means: the number of valid targets
differs from one micro-batch to the next, and only the whole step knows the number to divide by (`valid_counts`). Head and loss are
inside the module that DeepSpeed wraps, because ZeRO gathers weights and finishes gradients around its `forward` alone.

In evaluation mode the dict also holds the sums that the scores are made of.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.data.masking import IGNORED_LABEL as IGNORED

Batch = dict[str, Tensor]
Sums = dict[str, Tensor]


class PretrainingModel(nn.Module):
    """A transformers model under `.model`, and the objective. Parameter names are the model's with `model.` in front."""

    loss_names: tuple[str, ...]
    """The parts of the loss: keys of `forward` and of `valid_counts`. The loss is the sum of sum / count over the parts."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def valid_counts(self, batch: Batch) -> dict[str, int]:
        """Targets in a micro-batch, for each part of the loss."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Sums:
        """Loss sums (scalars, float32) of a micro-batch; in evaluation mode also the sums behind the scores."""
        raise NotImplementedError


class MaskedLanguageModelling(PretrainingModel):
    """BERT's objective (Devlin et al., 2019, section 3.1): masked tokens and, where the model has the head, next sentences."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.has_next_sentence = hasattr(model.cls, "seq_relationship")
        self.loss_names = ("mlm", "nsp") if self.has_next_sentence else ("mlm",)

    def valid_counts(self, batch: Batch) -> dict[str, int]:
        counts = {"mlm": int((batch["masked_labels"] != IGNORED).sum())}
        if self.has_next_sentence:
            counts["nsp"] = int((batch["next_sentence_label"] != IGNORED).sum())
        return counts

    def forward(self, batch: Batch) -> Sums:
        encoded = self.model.bert(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], token_type_ids=batch["token_type_ids"], return_dict=True
        )
        hidden = encoded.last_hidden_state  # (samples, length, hidden)
        positions = batch["masked_positions"].unsqueeze(-1).expand(-1, -1, hidden.size(-1))
        scores = self.model.cls.predictions(hidden.gather(1, positions))  # (samples, predictions, vocabulary)
        labels = batch["masked_labels"]  # (samples, predictions)
        sums = {"mlm": _cross_entropy_sum(scores, labels)}
        if not self.training:
            sums["mlm_correct"] = (scores.argmax(-1) == labels).sum()
            of_mask_token = labels.where(batch["replaced_by_mask"], IGNORED)
            sums["mask_token_loss"] = _cross_entropy_sum(scores, of_mask_token)
            sums["mask_token_count"] = (of_mask_token != IGNORED).sum()
        if self.has_next_sentence:
            relation = self.model.cls.seq_relationship(encoded.pooler_output)  # (samples, 2)
            sums["nsp"] = _cross_entropy_sum(relation, batch["next_sentence_label"])
            if not self.training:
                sums["nsp_correct"] = (relation.argmax(-1) == batch["next_sentence_label"]).sum()
        return sums


class CausalLanguageModelling(PretrainingModel):
    """GPT-2's objective: the next token at every position."""

    loss_names = ("clm",)

    def valid_counts(self, batch: Batch) -> dict[str, int]:
        return {"clm": int((batch["labels"] != IGNORED).sum())}

    def forward(self, batch: Batch) -> Sums:
        hidden = self.model.transformer(input_ids=batch["input_ids"], use_cache=False, return_dict=True).last_hidden_state
        return {"clm": _cross_entropy_sum(self.model.lm_head(hidden), batch["labels"])}


def _cross_entropy_sum(scores: Tensor, labels: Tensor) -> Tensor:
    """Sum in float32 of the cross-entropy (nats) over the valid labels; `scores` (..., classes), `labels` (...)."""
    return F.cross_entropy(scores.float().flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum")


def combine(sums: Sums, counts: dict[str, float], names: tuple[str, ...]) -> Tensor:
    """The loss: for each part its sum over its count, added up."""
    return torch.stack([sums[name] / counts[name] for name in names]).sum()
