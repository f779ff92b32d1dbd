"""Blocks of equal length cut from the token stream, for masked language modelling on full sequences and for GPT-2."""

import numpy as np

from pretrain.data.prepared import Split


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
        places = anchors[:, None] * self.length + np.arange(self.length)
        document = np.searchsorted(self._starts, places, side="right") - 1
        is_text = places != self._starts[document + 1] - 1
        tokens = self._tokens[np.minimum(places - document, len(self._tokens) - 1)]
        return np.where(is_text, tokens, self.separator).astype(np.int64), is_text


class Blocks:
    """Blocks of the stream as it is stored, each with the token after it."""

    def __init__(self, split: Split, length: int) -> None:
        self.length = length
        self._tokens = np.asarray(split.tokens)
        self.num_anchors = max(0, len(self._tokens) - 1) // length

    def read(self, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The blocks and their next tokens, each int64 [n, length]."""
        places = anchors[:, None] * self.length + np.arange(self.length)
        return self._tokens[places].astype(np.int64), self._tokens[places + 1].astype(np.int64)
