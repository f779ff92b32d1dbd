"""How well a model that continues text predicts one: the probability of each token after those before it, by a window that slides."""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F

from pretrain.data.masking import IGNORED_LABEL
from pretrain.data.progress import Progress
from pretrain.errors import UserError
from pretrain.evaluate.subject import Subject
from pretrain.evaluate.table import Result, as_value
from pretrain.evaluate.text import documents, names_text, own_validation, settings
from pretrain.loading import Loaded

_TOKENS_AT_ONCE = 2048
"""In one forward pass, padding included, unless a single window has more."""

_WINDOWS_TOGETHER = 1024
"""Sorted by length at a time."""

Window = tuple[Sequence[int], Sequence[int]]
"""Tokens that the model sees, and as many labels: the tokens after them, -100 where they are not to be scored."""


def evaluate(
    subject: Subject, overrides: list[str], config_dir: str | None, max_length: int | None, stride: int | None, concatenate: bool
) -> Result:
    """The perplexity of the text that `overrides` name or, without one, of the run's validation text."""
    length, stride = _window(subject, max_length, stride)
    if names_text(overrides):
        about, texts = " ".join(overrides), documents(settings(subject, overrides, config_dir), subject.loaded)
    else:
        assert subject.run is not None, "checked before"
        about, texts = "the run's own validation text", own_validation(subject.run, subject.loaded)[1]
    nats, tokens = score(subject.loaded, texts, length, stride, concatenate)
    if not tokens:
        raise UserError(f"there is no token to score in {about}; give a text that holds some")
    words, num_bytes = sum(len(text.split()) for text in texts), sum(len(text.encode()) for text in texts)
    joined = "one stream of documents" if concatenate else "each document for itself"
    figures = perplexities(nats, tokens, words, num_bytes)
    trained = subject.loaded.trained_length
    note = {"note": f"positions from {trained:,} on were not trained by the run"} if trained and length > trained else {}
    return Result(
        {
            "model": subject.description,
            "text": about,
            "documents": len(texts),
            "tokens": tokens,
            "words": words,
            "bytes": num_bytes,
            "max_length": length,
            "stride": stride,
            "trained_length": trained,
            "context": joined,
            "nats": nats,
            **figures,
        },
        {
            "model": subject.description,
            "text": about,
            "size": f"{len(texts):,} documents, {tokens:,} tokens, {words:,} words, {num_bytes:,} bytes",
            "windows": f"{length:,} tokens, stride {stride:,}; {joined}, {_front(subject.loaded)} in front of each and not scored",
            "perplexity": f"{as_value(figures['perplexity'])} per token, {as_value(figures['word_perplexity'])} per word, "
            f"{as_value(figures['byte_perplexity'])} per byte",
            "loss": f"{as_value(figures['loss'])} nats per token; {as_value(figures['bits_per_byte'])} bits per byte",
            **note,
        },
    )


def perplexities(nats: float, tokens: int, words: int, num_bytes: int) -> dict[str, float | None]:
    """From the text's negative log-probability: loss per token and perplexities, exp(nats / count), under the names of lm-eval and of a
    run's metrics. Words are what white space separates in the text as it was read, bytes those of UTF-8. Of what there is none in the
    text (no word in one of line breaks) the figures are None."""

    def per(count: int) -> float | None:
        return math.exp(min(nats / count, 700.0)) if count else None

    return {
        "loss": nats / tokens if tokens else None,
        "perplexity": per(tokens),
        "word_perplexity": per(words),
        "byte_perplexity": per(num_bytes),
        "bits_per_byte": nats / num_bytes / math.log(2) if num_bytes else None,
    }


def score(loaded: Loaded, texts: Sequence[str], length: int, stride: int, concatenate: bool) -> tuple[float, int]:
    """The negative log-probability (nats) of all tokens of the texts, and how many there are.

    Each token is scored once, over all rows of the model's vocabulary, padded ones too, as in training. In front of a text stands the token
    that begins one (<|endoftext|>), which is not scored itself. The model sees `length` tokens at a time; from the second window of a text
    on it scores the last `stride` of them, so that each has at least length - stride tokens before it.
    """
    streams = list(_streams(loaded, texts, concatenate))
    nats, count = 0.0, 0
    with Progress("evaluating", sum(_scored(labels) for _, labels in streams), unit="tokens") as bar:
        for batch in _batches(window for tokens, labels in streams for window in windows(tokens, labels, length, stride)):
            nats += _nats(loaded, batch)
            fresh = sum(_scored(labels) for _, labels in batch)
            count += fresh
            bar.advance(fresh)
    return nats, count


def windows(tokens: Sequence[int], labels: Sequence[int], length: int, stride: int) -> Iterator[Window]:
    """Windows of at most `length` tokens in which every label but the first, for which nothing stands before it, occurs once."""
    last = len(tokens) - 1
    done = 0
    while done < last:
        end = min(last, done + (stride if done else length))
        first = max(0, end - length)
        yield tokens[first:end], [*[IGNORED_LABEL] * (done - first), *labels[done + 1 : end + 1]]
        done = end


def _streams(loaded: Loaded, texts: Sequence[str], concatenate: bool) -> Iterator[tuple[list[int], list[int]]]:
    """Tokens and labels of what is scored for itself."""
    front = _front_id(loaded)
    tokens: list[int] = []
    labels: list[int] = []
    for text in texts:
        # text is text: what looks like a special token in it is ordinary characters, as when a corpus is prepared
        ids: list[int] = loaded.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        tokens += [front, *ids]
        labels += [IGNORED_LABEL, *ids]
        if not concatenate:
            yield tokens, labels
            tokens, labels = [], []
    if concatenate:
        yield tokens, labels


def _batches(windows: Iterator[Window]) -> Iterator[list[Window]]:
    """Windows of about the same length together, so that little is padded."""
    while some := list(islice(windows, _WINDOWS_TOGETHER)):
        batch: list[Window] = []
        for window in sorted(some, key=lambda window: len(window[0])):
            if batch and (len(batch) + 1) * len(window[0]) > _TOKENS_AT_ONCE:
                yield batch
                batch = []
            batch.append(window)
        yield batch


def _scored(labels: Sequence[int]) -> int:
    return sum(label != IGNORED_LABEL for label in labels)


@torch.inference_mode()
def _nats(loaded: Loaded, batch: Sequence[Window]) -> float:
    """Of one forward pass; shorter windows are padded behind, which no token before it sees."""
    size = len(batch), max(len(seen) for seen, _ in batch)
    input_ids, labels = torch.zeros(size, dtype=torch.int64), torch.full(size, IGNORED_LABEL)
    for row, (seen, wanted) in enumerate(batch):
        input_ids[row, : len(seen)] = torch.tensor(seen)
        labels[row, : len(wanted)] = torch.tensor(wanted)
    input_ids, labels = input_ids.to(loaded.model.device), labels.to(loaded.model.device)
    logits = loaded.model(input_ids=input_ids, use_cache=False).logits
    scored = labels != IGNORED_LABEL
    losses = F.cross_entropy(logits[scored].float(), labels[scored], reduction="none")
    return float(losses.double().sum())


def _window(subject: Subject, max_length: int | None, stride: int | None) -> tuple[int, int]:
    positions = subject.loaded.positions
    length = max_length or subject.loaded.window
    if length > positions:
        raise UserError(f"--max-length {length} is more than the model's {positions} positions; give {positions} or less")
    stride = stride or max(1, length // 2)
    if stride > length:
        raise UserError(f"--stride {stride} is more than --max-length {length}: tokens would be left out; give {length} or less")
    return length, stride


def _front_id(loaded: Loaded) -> int:
    tokenizer: Any = loaded.tokenizer
    found = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if found is None:
        raise UserError("this model's tokenizer has no token that begins or ends a text; give a model with one")
    return found


def _front(loaded: Loaded) -> str:
    return loaded.tokenizer.convert_ids_to_tokens(_front_id(loaded))
