"""What is trained on: a transformers model together with its head and loss, as one module.

`forward(batch)` returns a plain dict of loss SUMS over the targets of the micro-batch, never means: the number of targets differs from one
micro-batch to the next, and only the whole step knows the number to divide by (`valid_counts`). Head and loss are inside the module that
DeepSpeed wraps, because ZeRO gathers weights and finishes gradients around its `forward` alone. Batches are those of
`pretrain/data/micro_batches.py`.

In evaluation mode the dict also holds the sums that the scores are made of.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.data.masking import IGNORED_LABEL as IGNORED
from pretrain.model import attention
from pretrain.model.head import LossHead

Batch = dict[str, Tensor]
Sums = dict[str, Tensor]


class PretrainingModel(nn.Module):
    """A transformers model under `.model`, and the objective. Parameter names are the model's with `model.` in front."""

    loss_names: tuple[str, ...]
    """The parts of the loss: keys of `forward` and of `valid_counts`. The loss is the sum of sum / count over the parts."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers."""
        raise NotImplementedError

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
        attention.use(model)
        model.cls.predictions.decoder = LossHead.of(model.cls.predictions.decoder)
        self.has_next_sentence = hasattr(model.cls, "seq_relationship")
        self.loss_names = ("mlm", "nsp") if self.has_next_sentence else ("mlm",)

    @property
    def layers(self) -> nn.ModuleList:
        return self.model.bert.encoder.layer

    def valid_counts(self, batch: Batch) -> dict[str, int]:
        counts = {"mlm": len(batch["masked_labels"])}
        if self.has_next_sentence:
            counts["nsp"] = int((batch["next_sentence_label"] != IGNORED).sum())
        return counts

    def forward(self, batch: Batch) -> Sums:
        bert, predictions = self.model.bert, self.model.cls.predictions
        embedded = bert.embeddings(batch["input_ids"], batch["token_type_ids"], batch.get("position_ids"))
        sequences = attention.Sequences.of(batch, embedded, embedded.size(-1) // self.model.config.num_attention_heads)
        hidden = bert.encoder(embedded, sequences=sequences).last_hidden_state  # (samples, length, hidden) or (1, tokens, hidden)

        labels = batch["masked_labels"]  # (targets,)
        of_targets = hidden.flatten(0, 1).index_select(0, batch["masked_index"])  # (targets, hidden)
        found = predictions.decoder(predictions.transform(of_targets), labels)
        sums = {"mlm": found} if self.training else _masked_scores(*found, labels, batch["replaced_by_mask"])
        if self.has_next_sentence:
            first = hidden[0].index_select(0, sequences.cu_seqlens[:-1]) if sequences else hidden[:, 0]  # (samples, hidden)
            relation = self.model.cls.seq_relationship(bert.pooler(first.unsqueeze(1)))  # (samples, 2)
            label = batch["next_sentence_label"]
            sums["nsp"] = F.cross_entropy(relation.float(), label, ignore_index=IGNORED, reduction="sum")
            if not self.training:
                sums["nsp_correct"] = (relation.argmax(-1) == label).sum()
        return sums


class CausalLanguageModelling(PretrainingModel):
    """GPT-2's objective: the next token at every position."""

    loss_names = ("clm",)

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        attention.use(model)
        model.lm_head = LossHead.of(model.lm_head)

    @property
    def layers(self) -> nn.ModuleList:
        return self.model.transformer.h

    def valid_counts(self, batch: Batch) -> dict[str, int]:
        return {"clm": int((batch["labels"] != IGNORED).sum())}

    def forward(self, batch: Batch) -> Sums:
        hidden = self.model.transformer(input_ids=batch["input_ids"], use_cache=False, return_dict=True).last_hidden_state
        found = self.model.lm_head(hidden.flatten(0, 1), batch["labels"].flatten())
        return {"clm": found if self.training else found[0].sum()}


def _masked_scores(losses: Tensor, best: Tensor, labels: Tensor, replaced_by_mask: Tensor) -> Sums:
    """What the evaluation of masked positions adds up, from each one's loss, best token, label, and whether it became [MASK]."""
    return {
        "mlm": losses.sum(),
        "mlm_correct": (best == labels).sum(),
        "mask_token_loss": (losses * replaced_by_mask).sum(),
        "mask_token_count": replaced_by_mask.sum(),
    }


def combine(sums: Sums, counts: dict[str, float], names: tuple[str, ...]) -> Tensor:
    """The loss: for each part its sum over its count, added up."""
    return torch.stack([sums[name] / counts[name] for name in names]).sum()
