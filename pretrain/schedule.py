"""The learning rate as a function of the step: no state, so that a resumed run needs none."""

import math

from pretrain.config.schema import ScheduleConfig


def warmup_steps(schedule: ScheduleConfig, num_steps: int) -> int:
    """Updates spent rising to the peak."""
    return round(schedule.warmup_ratio * num_steps)


def learning_rate(schedule: ScheduleConfig, peak: float, step: int, num_steps: int) -> float:
    """The rate of update number `step`, counted from 0 over applied updates only.

    Of w warm-up updates the first takes peak / w and the last the peak. Decay ends at `min_lr_ratio * peak` where the run ends, just
    past the last update, so that no update is spent on a rate of 0.
    """
    rising = warmup_steps(schedule, num_steps)
    if step < rising:
        return peak * (step + 1) / rising
    progress = 1.0 if step >= num_steps else (step - rising) / (num_steps - rising)
    return peak * (schedule.min_lr_ratio + (1 - schedule.min_lr_ratio) * _remaining(schedule.kind, progress))


def _remaining(kind: str, progress: float) -> float:
    """The share of the decay still to come: 1 at the end of the warm-up, 0 at the end of the run."""
    if kind == "constant":
        return 1.0
    if kind == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1 - progress
