"""What a run asks of DeepSpeed: exact reductions in fp32, whatever the precision of the weights. Imports nothing heavy."""

from typing import Any

from pretrain.batch_plan import BatchPlan
from pretrain.config.schema import Config

COMMUNICATION_DTYPE = "fp32"
"""Gradients travel between ranks in it; DeepSpeed's own default under bf16 is bf16, up to 2e-3 off."""


def deepspeed_config(config: Config, plan: BatchPlan, on_gpu: bool) -> dict[str, Any]:
    """DeepSpeed's configuration for a run."""
    train, stage = config.train, config.zero.stage
    zero = {"overlap_comm": on_gpu and stage > 0, **dict(config.zero.extra), "stage": stage}
    if stage == 2 and train.precision != "fp32" and not _is_power_of_two(plan.world_size):
        # Reduce-scatter divides the low-precision bucket by the number of ranks before it adds: exact for powers of two only.
        zero["reduce_scatter"] = False
    if config.zero.offload == "cpu":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": on_gpu}
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": plan.micro_batch_size,
        "gradient_accumulation_steps": plan.gradient_accumulation_steps,
        "gradient_clipping": 0.0 if harness_owns_the_step(config) else train.grad_clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "communication_data_type": COMMUNICATION_DTYPE,
    }
    if train.precision == "bf16":
        # The immediate update drops the second, bf16 copy of the gradients that ZeRO-1 would hold.
        settings["bf16"] = {"enabled": True, "immediate_grad_update": stage == 1}
    if train.precision == "fp16":
        settings["fp16"] = {"enabled": True}
    if stage and gradient_dtype(config) == "fp32":
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
    return settings


def gradient_dtype(config: Config) -> str:
    """Dtype in which the micro-steps' gradients are added up."""
    return config.train.precision if config.train.grad_accum_dtype == "model" else "fp32"


def harness_owns_the_step(config: Config) -> bool:
    """Whether the harness checks, measures and clips the gradient itself: stage 0 in fp32, where DeepSpeed has no check."""
    return config.zero.stage == 0 and config.train.precision == "fp32"


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0
