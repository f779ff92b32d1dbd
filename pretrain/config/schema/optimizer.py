"""How it is trained: the optimizers, each with its own knobs, and the learning rate over the run."""

import math
from dataclasses import dataclass

from omegaconf import MISSING

from pretrain.config.schema.checks import require, require_choice, require_fraction, require_not_negative, require_positive


@dataclass
class OptimizerConfig:
    """Common to all optimizers; each has its own dataclass, so that only its own knobs exist."""

    name: str = MISSING
    lr: float = MISSING
    """Peak learning rate; the schedule scales it."""
    weight_decay: float = 0.01
    """Decoupled; not applied to biases and normalisation weights."""

    def __post_init__(self) -> None:
        require_positive("optimizer", self, "lr")
        require_not_negative("optimizer", self, "weight_decay")


@dataclass
class CameConfig(OptimizerConfig):
    """CAME (Luo et al., ACL 2023, Algorithm 2), with the paper's values."""

    name: str = "came"
    lr: float = 2e-4
    beta1: float = 0.9
    beta2: float = 0.999
    beta3: float = 0.9999
    eps1: float = 1e-30
    eps2: float = 1e-16
    clip_threshold: float = 1.0
    bias_correction: bool = False
    """Not the paper's: correct the averages for having begun at zero; the first steps are then 1.1 times lr instead of 11."""
    cautious: bool = False
    """Not the paper's: move only what moves against the gradient (Liang et al., 2024)."""
    trust_ratio: bool = False
    """Not the paper's: scale each matrix's update to the norm of its weights, as LAMB does."""
    momentum_dtype: str = "float32"
    """How the momentum is kept: float32; bfloat16; int8 (a scale for each 256 elements). The latter are rounded stochastically, from
    run.seed."""
    implementation: str = "auto"
    """Of the step, the same but for rounding: eager (PyTorch), triton (fused kernels, on NVIDIA GPUs), auto (kernels where they can be
    taken)."""
    legacy_1d: bool = False
    """Not the paper's: the authors' harness's fault on biases and normalisation weights, for reproducing its numbers only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fraction("optimizer", self, "beta1", "beta2", "beta3")
        require_positive("optimizer", self, "eps1", "eps2", "clip_threshold")
        require_choice("optimizer.momentum_dtype", self.momentum_dtype, ("float32", "bfloat16", "int8"))
        require_choice("optimizer.implementation", self.implementation, ("auto", "eager", "triton"))
        without_kernel = [name for name in ("cautious", "trust_ratio", "legacy_1d") if getattr(self, name)]
        if self.implementation == "triton" and without_kernel:
            key = f"optimizer.{without_kernel[0]}"
            require(False, key, "true", "optimizer.implementation=auto with it: it has no kernel")


@dataclass
class TwoMomentsConfig(OptimizerConfig):
    """What keeps two moments of every element."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fraction("optimizer", self, "beta1", "beta2")
        require_positive("optimizer", self, "eps")


@dataclass
class AdamWConfig(TwoMomentsConfig):
    """AdamW (Loshchilov and Hutter, 2019)."""

    name: str = "adamw"
    lr: float = 1e-4
    eps: float = 1e-8


@dataclass
class LambConfig(TwoMomentsConfig):
    """LAMB (You et al., ICLR 2020, Algorithm 2); biases and normalisation weights are left out of its layer-wise adaptation."""

    name: str = "lamb"
    lr: float = 1e-3
    eps: float = 1e-6


@dataclass
class AdafactorConfig(OptimizerConfig):
    """Adafactor (Shazeer and Stern, ICML 2018); the schedule gives the learning rate."""

    name: str = "adafactor"
    lr: float = 1e-2
    """Relative to each parameter's RMS while `scale_parameter` is on."""
    scale_parameter: bool = True
    beta1: float | None = None
    """Decay of the momentum; null for none, and no state for it."""
    beta2_decay: float = -0.8
    """beta2 of step t is 1 - t^beta2_decay."""
    eps1: float = 1e-30
    eps2: float = 1e-3
    clip_threshold: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("optimizer", self, "eps1", "eps2", "clip_threshold")
        require(-math.inf < self.beta2_decay <= 0, "optimizer.beta2_decay", self.beta2_decay, "0 or less")
        if self.beta1 is not None:
            require_fraction("optimizer", self, "beta1")


@dataclass
class Sm3Config(OptimizerConfig):
    """SM3-II (Anil et al., NeurIPS 2019)."""

    name: str = "sm3"
    lr: float = 0.1
    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fraction("optimizer", self, "momentum")


@dataclass
class ScheduleConfig:
    """Learning rate over the run: linear warm-up, then `kind`."""

    kind: str = MISSING
    """linear: to min_lr_ratio at the end; cosine: half a period to the same; constant."""
    warmup_ratio: float = 0.1
    """Share of the steps spent rising to the peak."""
    min_lr_ratio: float = 0.0
    """Where decay ends, as a share of the peak."""

    def __post_init__(self) -> None:
        require_choice("schedule.kind", self.kind, ("linear", "cosine", "constant"))
        require_fraction("schedule", self, "warmup_ratio", "min_lr_ratio")
