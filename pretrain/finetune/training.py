"""One fine-tuning: a plain loop on one device. The same seed gives the same order of examples, whatever the weights begin with."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pretrain.config.schema.finetune import FinetuningConfig
from pretrain.data.progress import Progress
from pretrain.finetune.batches import epoch_batches, padded
from pretrain.finetune.problem import Evaluation, Problem
from pretrain.optim import build_optimizer
from pretrain.schedule import learning_rate

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Outcome:
    """What became of one seed."""

    epochs: list[dict[str, Any]] = field(default_factory=list)
    """`epoch`, `step`, mean `loss` of the epoch's batches, `scores`: after each epoch."""
    evaluation: Evaluation | None = None
    """After the last update; None where it diverged."""
    diverged: str | None = None
    """Where and how, if it did."""
    train_seconds: float = 0.0
    """Without the evaluations."""
    num_rows: int = 0
    """Rows trained on, each as often as it was."""


def num_updates(num_rows: int, config: FinetuningConfig) -> int:
    """Of the whole fine-tuning."""
    settings = config.finetune
    whole = math.ceil(num_rows / settings.batch_size) * settings.num_epochs
    return min(whole, settings.max_steps or whole)


def train(model: "nn.Module", problem: Problem, config: FinetuningConfig, seed: int, pad_id: int, tell: Callable[[str], None]) -> Outcome:
    """Train `model` where it is, and evaluate it after every epoch and after the last update.

    Args:
        pad_id: token that fills the shorter rows of a batch.
        tell: takes a line for the user after each epoch.

    Ends where the loss or the gradient is not finite.
    """
    import torch

    settings = config.finetune
    total = num_updates(len(problem.rows), config)
    num_epochs = math.ceil(total / math.ceil(len(problem.rows) / settings.batch_size))
    device = next(model.parameters()).device
    optimizer = build_optimizer(config.optimizer, model, seed)
    lengths = [len(row.input_ids) for row in problem.rows]
    outcome, step, epoch = Outcome(), 0, 0
    torch.manual_seed(seed)  # of dropout: the same whatever was drawn for the weights
    with Progress(f"seed {seed}", total, unit="updates") as progress:
        while step < total:
            losses, begun = [], time.monotonic()
            model.train()
            for places in epoch_batches(lengths, settings.batch_size, seed, epoch)[: total - step]:
                rows = [problem.rows[place] for place in places]
                batch = {name: tensor.to(device) for name, tensor in padded(rows, pad_id).items()}
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(config.schedule, config.optimizer.lr, step, total)
                loss = problem.loss(model, batch, rows)
                optimizer.zero_grad()
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip or math.inf)
                step += 1
                losses.append(loss.item())
                if not math.isfinite(losses[-1] + norm.item()):
                    outcome.diverged = f"at update {step} of {total} the loss is {losses[-1]:g} and the gradient norm {norm.item():g}"
                    return outcome
                optimizer.step()
                outcome.num_rows += len(rows)
                progress.advance(1)
            outcome.train_seconds += time.monotonic() - begun
            epoch += 1
            model.eval()
            outcome.evaluation = problem.evaluate(model, device, settings.eval_batch_size)
            scores, mean_loss = outcome.evaluation.scores, sum(losses) / len(losses)
            outcome.epochs.append({"epoch": epoch, "step": step, "loss": mean_loss, "scores": scores})
            told = "  ".join(f"{name} {100 * score:.2f}" for name, score in scores.items())
            tell(f"seed {seed}  epoch {epoch} of {num_epochs}  loss {mean_loss:.4f}  {told}")
    return outcome
