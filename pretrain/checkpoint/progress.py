"""How far a run has come: all that a resumed run needs beside its weights and state, because everything random follows from it."""

from dataclasses import dataclass, field


@dataclass
class Progress:
    """Counts of a run."""

    step: int = 0
    """Applied optimizer updates."""
    skipped_steps: int = 0
    """Steps that were refused: a gradient that is not finite, or a spike."""
    loss_scale: float = 1.0
    """fp16's dynamic loss scale."""
    recent_grad_norms: list[float] = field(default_factory=list)
    """What the spike guard compares with, oldest first."""

    def position(self, global_batch_size: int) -> int:
        """Samples drawn so far: a skipped batch is not retried."""
        return (self.step + self.skipped_steps) * global_batch_size
