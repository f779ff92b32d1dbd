"""What training needs to know of a task: rows to train on, a head, a loss, and an evaluation. GLUE's tasks and SQuAD are such problems."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pretrain.finetune.batches import Row


@dataclass(frozen=True)
class Evaluation:
    """Of the whole validation data."""

    scores: dict[str, float]
    """Metrics as fractions, the main one first; NaN where one is not defined."""
    predictions: str
    """A file from which anybody can compute the metrics again."""


class Problem(Protocol):
    """A task, tokenized."""

    rows: "list[Row]"
    """To train on."""
    counts: dict[str, int]
    """Examples by split, for the record."""
    fingerprint: str
    """Hexadecimal SHA-256 over all examples and labels."""
    predictions_suffix: str
    """End of the name of the file of predictions."""

    def loss(self, model: "nn.Module", batch: "dict[str, Tensor]", rows: "list[Row]") -> "Tensor":
        """Mean over the rows, a scalar."""

    def evaluate(self, model: "nn.Module", device: Any, batch_size: int) -> Evaluation:
        """With the model in evaluation mode."""
