"""What DeepSpeed 0.19 does with the settings of `pretrain/engine_settings.py`, as far as memory and communication follow from it.

Read in its sources (`stage_1_and_2.py`, `bf16_optimizer.py`, `stage3.py`, `partitioned_param_coordinator.py`) and held by
tests/distributed/test_plan.py, which compares it with what is measured.
"""

import sys
from dataclasses import dataclass, replace

from came.layouts.foretold import SUB_GROUP_SIZE
from pretrain.config.schema import Config, TrainConfig, ZeroConfig

ITEM_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
BUCKET_ELEMENTS = 500_000_000
"""Where no ZeRO optimizer reduces the gradients: elements that travel at a time."""


@dataclass(frozen=True)
class Zero:
    """One way of training under DeepSpeed: the stage with everything that memory and communication depend on beside the model."""

    stage: int
    precision: str
    accumulation: str
    """Precision in which micro-steps' gradients are added up."""
    offload: bool
    reduce_bucket_size: int = BUCKET_ELEMENTS
    sub_group_size: int = SUB_GROUP_SIZE
    stage3_prefetch_bucket_size: int = 50_000_000
    stage3_param_persistence_threshold: int = 100_000
    stage3_model_persistence_threshold: int = sys.maxsize
    stage3_max_live_parameters: int = 1_000_000_000
    stage3_max_reuse_distance: int = 1_000_000_000
    overlap_comm: bool = True
    """As on a GPU, where the harness asks for it from stage 1 on."""

    @property
    def weight_bytes(self) -> int:
        """Of one element of the weights."""
        return ITEM_BYTES[self.precision]

    @property
    def accumulation_bytes(self) -> int:
        """Of one element of the accumulated gradient."""
        return ITEM_BYTES[self.accumulation]

    @property
    def by_bf16_optimizer(self) -> bool:
        """Whether DeepSpeed's BF16_Optimizer does the work of ZeRO-1: the whole fp32 gradient is on every rank, and one `step()` updates
        all groups."""
        return self.stage == 1 and (self.precision, self.accumulation) == ("bf16", "fp32") and not self.offload

    @property
    def keeps_slices_apart(self) -> bool:
        """ZeRO-1/2: whether the rank's slice of the gradient is added up in a tensor of its own; else it is kept as parts of the whole
        gradients of all parameters that the rank has a part of."""
        return self.precision != self.accumulation or self.offload


def zero_of(config: Config) -> Zero:
    """How `config` is trained. At stage 0 in bf16 the gradients are added up in it, as DeepSpeed can do no other (such a run asks for
    train.grad_accum_dtype=model)."""
    train, zero = config.train, config.zero
    lower = train.grad_accum_dtype == "model" or zero.stage == 0
    known = {name: value for name, value in zero.extra.items() if name in Zero.__dataclass_fields__}
    return Zero(zero.stage, train.precision, train.precision if lower else "fp32", zero.offload == "cpu", **known)


def at_stage(config: Config, stage: int) -> Config:
    """The same run at another stage; offload is left out at stage 0, which has none."""
    offload = config.zero.offload if stage else "none"
    return replace(config, zero=ZeroConfig(stage=stage, offload=offload, extra=config.zero.extra))


def runs_at_stage_0(train: TrainConfig) -> bool:
    """Whether stage 0 takes the run's precision as it is."""
    return train.precision == "fp32" or (train.precision == "bf16" and train.grad_accum_dtype == "model")
