"""How well a BERT fills in masked tokens: the scores of a run's `eval` lines, with the masks that validation draws."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pretrain.config.schema import Config, PreparedDataConfig
from pretrain.data.batches import Batches, make_batches
from pretrain.data.loader import evaluation_batches
from pretrain.data.mixture import mixture_of
from pretrain.data.prepared import Prepared
from pretrain.data.progress import Progress
from pretrain.data.whole_text import whole_text
from pretrain.errors import UserError
from pretrain.evaluate.subject import Subject
from pretrain.evaluate.table import Result, as_value
from pretrain.evaluate.text import names_text, own_validation, prepared_for, settings
from pretrain.model.objective import MaskedLanguageModelling
from pretrain.validation import add_up, scores

_TOKENS_AT_ONCE = 4096
"""In one forward pass."""


def evaluate(subject: Subject, overrides: list[str], config_dir: str | None) -> Result:
    """Loss and accuracy on the text that `overrides` name, every source once whatever its weight or, without one, on as much of the run's
    validation text as the run evaluates, mixed as there."""
    model, tokenizer = subject.loaded.model, subject.loaded.tokenizer
    if model.config.model_type != "bert" or type(tokenizer.backend_tokenizer.model).__name__ != "WordPiece":
        raise UserError(
            f"{subject.name} is a {model.config.model_type} model with a {type(tokenizer).__name__}; what fills in masks has to be a BERT "
            "with a WordPiece vocabulary, give one"
        )
    samples = None
    if names_text(overrides):
        about, config = " ".join(overrides), settings(subject, overrides, config_dir)
        prepared = _prepared(config, subject)
    else:
        assert subject.run is not None, "checked before"
        about, config = "the run's own validation text", subject.run.config
        prepared, samples = own_validation(subject.run, subject.loaded)[0], config.train.eval_samples
    # the masks follow from a constant and a sample's position alone: run.seed has no part in them
    drawing = config.objective, config.data.max_seq_length, config.run.seed, mixture_of(prepared, config.data)
    batches = make_batches(prepared, "valid", *drawing)
    if samples is None:
        taken = [(source, source.num_anchors) for source in batches.by_source()]
    else:
        taken = [(batches, min(samples, batches.num_anchors))]
    num_samples = sum(number for _, number in taken)
    found = score(subject, taken, with_pairs=config.objective.kind == "mlm_nsp")
    mask_probability: float = config.objective.mask_probability  # type: ignore[attr-defined]
    text = "sentence pairs" if config.objective.kind == "mlm_nsp" else "full sequences"
    return Result(
        {
            "model": subject.description,
            "text": about,
            "samples": num_samples,
            "max_seq_length": batches.sequence_length,
            "objective": config.objective.kind,
            "mask_probability": mask_probability,
            **found,
        },
        {
            "model": subject.description,
            "text": about,
            "samples": f"{num_samples:,} {text} of {batches.sequence_length} tokens, {mask_probability:.0%} of them predicted, the masks "
            "of every run's validation",
            "scores": ", ".join(f"{name} {as_value(value)}" for name, value in found.items()),
        },
    )


def score(subject: Subject, taken: Sequence[tuple[Batches, int]], with_pairs: bool) -> dict[str, float]:
    """The scores of the first so many samples of each of `taken`, named as in `pretrain.validation.evaluate`."""
    model = subject.loaded.model
    if not with_pairs and hasattr(model.cls, "seq_relationship"):
        del model.cls.seq_relationship
    objective = MaskedLanguageModelling(model).eval()

    @torch.inference_mode()
    def measure(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return objective({name: value.to(model.device) for name, value in batch.items()})

    return scores(add_up(_dealt(taken), objective.valid_counts, measure))


def _dealt(taken: Sequence[tuple[Batches, int]]) -> Iterator[dict[str, Tensor]]:
    with Progress("evaluating", sum(number for _, number in taken), unit="samples") as bar:
        for batches, number in taken:
            size = max(1, _TOKENS_AT_ONCE // batches.sequence_length)
            for batch in evaluation_batches(batches, number, size, 0, 1):
                yield batch
                bar.advance(size)


def _prepared(config: Config, subject: Subject) -> Prepared:
    if isinstance(config.data, PreparedDataConfig):
        return prepared_for(config, subject.loaded)
    return whole_text(config.data, subject.loaded.tokenizer.backend_tokenizer)
