"""Blocks of equal length cut from the token stream, for masked language modelling on full sequences and for GPT-2."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pretrain.data.prepared import Split
from pretrain.data.ranges import ranges


class SeparatedBlocks:
    """Blocks of the stream in which every document is followed by [SEP]; the rest at the end that fills no block is left out.

    The separators are not stored; they are put in as blocks are read.
    """

    def __init__(self, split: Split, length: int, separator: int) -> None:
        self.length, self.separator = length, separator
        self._tokens = np.asarray(split.tokens)
        token_starts = np.asarray(split.sentence_starts)[np.asarray(split.document_starts)]
        self._starts = token_starts + np.arange(len(token_starts))
        self.num_anchors = int(self._starts[-1]) // length

    def read(self, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The blocks (int64 [n, length]), and where they hold text and not a separator (bool [n, length])."""
        starts = anchors * self.length
        document = np.searchsorted(self._starts, starts, side="right") - 1
        num_separators = np.searchsorted(self._starts, starts + self.length, side="right") - 1 - document
        is_text = np.ones((len(anchors), self.length), dtype=bool)
        rows = np.repeat(np.arange(len(anchors)), num_separators)
        is_text[rows, self._starts[ranges(document + 1, num_separators)] - 1 - starts[rows]] = False
        blocks = np.full(is_text.shape, self.separator, dtype=np.int64)
        blocks[is_text] = self._tokens[ranges(starts - document, self.length - num_separators)]
        return blocks, is_text


class Blocks:
    """Blocks of the stream as it is stored, each with the token after it."""

    def __init__(self, split: Split, length: int) -> None:
        self.length = length
        self._tokens = np.asarray(split.tokens)
        self.num_anchors = max(0, len(self._tokens) - 1) // length

    def read(self, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The blocks and their next tokens, each int64 [n, length]."""
        stretches = sliding_window_view(self._tokens, self.length + 1)[anchors * self.length]
        return stretches[:, :-1].astype(np.int64), stretches[:, 1:].astype(np.int64)
