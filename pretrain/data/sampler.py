"""Position of the run -> anchor: the order in which the pieces of the text are seen."""

import numpy as np

from pretrain.data.permutation import permute


class ShuffledOrder:
    """Every epoch is a fresh permutation of the anchors, so each is seen exactly once per epoch."""

    def __init__(self, num_anchors: int, seed: int) -> None:
        self.num_anchors, self.seed = num_anchors, seed

    def anchors(self, positions: np.ndarray) -> np.ndarray:
        """The anchor at each position; both int64 [n]."""
        epochs, indices = np.divmod(positions, self.num_anchors)
        return permute(indices, self.num_anchors, self.seed, epochs)


class PlainOrder:
    """The anchors as they lie in the text, over and over."""

    def __init__(self, num_anchors: int) -> None:
        self.num_anchors = num_anchors

    def anchors(self, positions: np.ndarray) -> np.ndarray:
        """The anchor at each position; both int64 [n]."""
        return positions % self.num_anchors
