"""Batch arithmetic: global batch = micro-batch x accumulation x ranks."""

from dataclasses import dataclass

from pretrain.config.schema import AUTO, TrainConfig
from pretrain.errors import UserError


@dataclass(frozen=True)
class BatchPlan:
    """How one optimizer step's samples are spread over micro-steps and ranks; only whole shares exist."""

    global_batch_size: int
    micro_batch_size: int
    world_size: int

    @classmethod
    def make(cls, global_batch_size: int, micro_batch_size: int, world_size: int) -> "BatchPlan":
        """The plan, or a `UserError` that names the nearest batches that divide."""
        unit = micro_batch_size * world_size
        if global_batch_size % unit:
            divisor, mend = f"train.micro_batch_size={micro_batch_size} x {world_size} ranks", "a micro-batch that divides it, or "
            if global_batch_size % world_size:  # then no micro-batch divides it
                divisor, mend = f"its {world_size} ranks", ""
            below = global_batch_size // unit * unit
            nearest = ", ".join(str(size) for size in (below, below + unit) if size)
            raise UserError(
                f"train.global_batch_size={global_batch_size} is not a multiple of {divisor}; "
                f"give {mend}the nearest global batch: {nearest}"
            )
        return cls(global_batch_size, micro_batch_size, world_size)

    @classmethod
    def of(cls, train: TrainConfig, world_size: int) -> "BatchPlan":
        """The plan of a run; before an automatic micro-batch has been found, with the smallest there is."""
        smallest = 1 if train.micro_batch_size == AUTO else int(train.micro_batch_size)
        return cls.make(train.global_batch_size, smallest, world_size)

    @property
    def gradient_accumulation_steps(self) -> int:
        """Micro-steps of one rank per optimizer step."""
        return self.global_batch_size // (self.micro_batch_size * self.world_size)
