"""SQuAD v1.1 as a problem: the answer is a piece of the text, from a first to a last token.

A text that is too long is cut into windows that overlap. In training a window without the whole answer points at [CLS]; the answer given
is the best piece over all windows (Devlin et al., 2019, section 4.2).
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain.finetune import metrics
from pretrain.finetune.batches import Row, by_length, padded
from pretrain.finetune.problem import Evaluation
from pretrain.finetune.squad_data import Question

if TYPE_CHECKING:
    from torch import Tensor, nn

_QUESTION_TOKENS = 64
MAX_ANSWER_TOKENS = 30


@dataclass(frozen=True)
class Window:
    """A piece of a question's text, as a row for the model."""

    row: Row
    question: int
    """Place of its question in the list."""
    first: int
    """Token of the row with which the text begins."""
    offsets: list[tuple[int, int]]
    """Of each token of the text in this window: first character and the one behind its last."""


class QuestionAnswering:
    """Cuts the texts into windows. `doc_stride`: tokens that two windows have in common."""

    predictions_suffix = ".json"

    def __init__(self, train: list[Question], evaluated: list[Question], tokenizer: Any, max_seq_length: int, doc_stride: int) -> None:
        self._evaluated, self._pad_id = evaluated, tokenizer.pad_token_id
        self.rows = [window.row for window in windows(train, tokenizer, max_seq_length, doc_stride)]
        self._windows = windows(evaluated, tokenizer, max_seq_length, doc_stride)
        self.counts = {"train": len(train), "train_windows": len(self.rows), "dev": len(evaluated), "dev_windows": len(self._windows)}
        content = json.dumps([[dataclasses.astuple(asked) for asked in questions] for questions in (train, evaluated)])
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()

    def loss(self, model: "nn.Module", batch: "dict[str, Tensor]", rows: list[Row]) -> "Tensor":
        """Mean of the cross entropies of the first and of the last token, nats."""
        import torch
        import torch.nn.functional as F

        found = model(**batch)
        starts, ends = torch.tensor([row.target for row in rows], device=found.start_logits.device).unbind(1)
        return (F.cross_entropy(found.start_logits.float(), starts) + F.cross_entropy(found.end_logits.float(), ends)) / 2

    def evaluate(self, model: "nn.Module", device: Any, batch_size: int) -> Evaluation:
        import torch

        best = [(-np.inf, "")] * len(self._evaluated)
        rows = [window.row for window in self._windows]
        for places in by_length(rows, batch_size):
            batch = padded([rows[place] for place in places], self._pad_id)
            with torch.inference_mode():
                found = model(**{name: tensor.to(device) for name, tensor in batch.items()})
            for place, starts, ends in zip(
                places, found.start_logits.float().cpu().numpy(), found.end_logits.float().cpu().numpy(), strict=True
            ):
                window = self._windows[place]
                score, text = best_piece(window, starts, ends, self._evaluated[window.question].context)
                if score > best[window.question][0]:
                    best[window.question] = (score, text)
        answers = {asked.id: text for asked, (_, text) in zip(self._evaluated, best, strict=True)}
        pairs = [(answers[asked.id], asked.answers) for asked in self._evaluated]
        scores = {
            "f1": float(np.mean([metrics.answer_f1(*pair) for pair in pairs])),
            "exact_match": float(np.mean([metrics.exact_match(*pair) for pair in pairs])),
        }
        return Evaluation(scores, json.dumps(answers, ensure_ascii=False, indent=0) + "\n")


def windows(questions: Sequence[Question], tokenizer: Any, max_seq_length: int, doc_stride: int) -> list[Window]:
    """All windows, question by question. Of a long question the first tokens are asked. Targets are those of the first answer."""
    asked = _cut_questions([question.question for question in questions], tokenizer, question_tokens(max_seq_length))
    found = tokenizer(
        asked,
        [question.context for question in questions],
        truncation="only_second",
        max_length=max_seq_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    made = []
    for place, question in enumerate(found["overflow_to_sample_mapping"]):
        ids = found["input_ids"][place]
        types = found["token_type_ids"][place] if "token_type_ids" in found else None
        of_text = [token for token, sequence in enumerate(found.sequence_ids(place)) if sequence == 1]
        first = of_text[0] if of_text else 0
        offsets = [tuple(found["offset_mapping"][place][token]) for token in of_text]
        target = _target(questions[question], first, offsets)
        made.append(Window(Row(ids, types, target), question, first, offsets))
    return made


def question_tokens(max_seq_length: int) -> int:
    """What a question may take of a row."""
    return min(_QUESTION_TOKENS, max_seq_length // 3)


def _cut_questions(texts: list[str], tokenizer: Any, most: int) -> list[str]:
    offsets = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [text[: places[most - 1][1]] if len(places) > most else text for text, places in zip(texts, offsets, strict=True)]


def _target(question: Question, first: int, offsets: list[tuple[int, int]]) -> tuple[int, int]:
    """The tokens of the row that hold the answer's first and last character; [CLS] twice where they are not all in this window."""
    answer = question.answers[0]
    start = question.starts[0] + len(answer) - len(answer.lstrip())
    last = start + len(answer.strip()) - 1
    starts = [place for place, (begin, end) in enumerate(offsets) if begin <= start < end]
    ends = [place for place, (begin, end) in enumerate(offsets) if begin <= last < end]
    return (first + starts[0], first + ends[-1]) if starts and ends else (0, 0)


def best_piece(window: Window, starts: np.ndarray, ends: np.ndarray, context: str) -> tuple[float, str]:
    """The piece of the text, of at most 30 tokens, with the highest sum of its scores as first and last token; and that sum.

    `starts` and `ends`: a score for each token of the row, padding included.
    """
    count = len(window.offsets)
    of_text = slice(window.first, window.first + count)
    starts, ends = starts[of_text], ends[of_text]
    best, chosen = -np.inf, (0, 0)
    for more in range(min(MAX_ANSWER_TOKENS, count)):
        sums = starts[: count - more] + ends[more:]
        place = int(sums.argmax())
        if sums[place] > best:
            best, chosen = float(sums[place]), (place, place + more)
    if best == -np.inf:
        return best, ""
    return best, context[window.offsets[chosen[0]][0] : window.offsets[chosen[1]][1]]
