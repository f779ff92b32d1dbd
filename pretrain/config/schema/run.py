"""The run around it: its folder, its rhythm, ZeRO, the tracker, the processes."""

import math
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from pretrain.config.schema.checks import require, require_choice, require_not_negative, require_positive

AUTO = "auto"
"""A setting that is found at the start of the run."""


@dataclass
class RunConfig:
    """Where a run lives and how it begins."""

    name: str = MISSING
    """Folder of the run below `dir`."""
    dir: str = "runs"
    """Folder that holds the runs; relative to where the command is given."""
    seed: int = 0
    """Model initialisation, sample order, masks and dropout all follow from it."""
    resume: str = "auto"
    """auto: go on where the run folder stands, or begin; must: stop unless `latest` is a whole checkpoint; never: stop if the folder holds
    a run."""
    init_from: str | None = None
    """Begin with the weights of another run, of one of its checkpoints, or of a model in Hugging Face format (a folder, or a name on the
    hub); the optimizer and the schedule begin anew. Empty: the run needs one that is still to be given."""
    dry_run: bool = False
    """Print the plan and exit; needs no data, network, GPU or weights."""
    export: bool = True
    """Write the finished model in Hugging Face format to `export/` in the run folder."""

    def __post_init__(self) -> None:
        require(
            bool(self.name) and "/" not in self.name and self.name not in (".", ".."), "run.name", repr(self.name), "a plain folder name"
        )
        require_choice("run.resume", self.resume, ("auto", "must", "never"))
        require(0 <= self.seed < 2**63, "run.seed", self.seed, "an integer from 0 to 2^63 - 1")


@dataclass
class TrainConfig:
    """Batch, length, precision and rhythm of a run."""

    global_batch_size: int = MISSING
    """Samples per optimizer step over all ranks."""
    micro_batch_size: Any = MISSING
    """Samples per forward/backward on one rank; the accumulation steps follow from it. auto: the largest that fits, see
    `pretrain/micro_batch.py`."""
    num_steps: int = MISSING
    """Optimizer updates of the whole run; a skipped step does not count."""
    precision: str = "fp32"
    """fp32, bf16, or fp16 (GPU only): dtype of weights and activations; master weights are fp32 always."""
    grad_accum_dtype: str = "fp32"
    """fp32, or `model` for the dtype of the weights (256 bf16 micro-steps then make the update some 36 % wrong)."""
    compile: bool | None = None
    """torch.compile for the transformer layers; none: on a GPU, below ZeRO-3. On a CPU it takes a C++ compiler."""
    activation_checkpointing: bool = False
    """Keep the layers' inputs only and compute the rest again in the backward pass: less memory, about a third more work."""
    grad_clip: float = 0.0
    """Largest global gradient norm; 0 clips nothing."""
    log_every_steps: int = 10
    eval_every_steps: int = 1000
    """0 evaluates at the end only."""
    eval_samples: int = 2048
    """Validation samples per evaluation, at most as many as the split holds."""
    checkpoint_every_steps: int = 1000
    """0 saves at the end only."""
    spike_sigma: float = 0.0
    """Skip a step whose gradient norm lies more than so many standard deviations above those of the last 128 applied steps, in logarithms
    (6 lets ordinary noise pass); 0 skips none. See `pretrain/spikes.py`."""
    max_skipped_steps: int = 10
    """Skipped steps in a row after which the run stops (fp16's own loss-scale search does not count)."""
    profile_steps: list[int] = field(default_factory=list)
    """[first, last] step of which rank 0 writes a torch-profiler trace to `profile/` in the run folder; empty: none."""
    memory_snapshot_steps: list[int] = field(default_factory=list)
    """[first, last] step of which rank 0 writes a snapshot of the GPU's allocations for PyTorch's memory viewer, likewise."""
    device_peak_tflops: float | None = None
    """What the device can do at most in the run's precision, in 10^12 dense operations per second, of which `mfu` is the share; none: by
    the device's name, see `pretrain/model/flops.py`."""

    def __post_init__(self) -> None:
        require_positive("train", self, "global_batch_size", "num_steps", "log_every_steps", "eval_samples", "max_skipped_steps")
        size = self.micro_batch_size
        fits = size == AUTO or (isinstance(size, int) and not isinstance(size, bool) and size > 0)
        require(fits, "train.micro_batch_size", size, f"a positive integer, or {AUTO} for the largest that fits")
        require_not_negative("train", self, "grad_clip", "eval_every_steps", "checkpoint_every_steps")
        spike_sigma_fits = self.spike_sigma == 0 or 1 <= self.spike_sigma < math.inf
        require(spike_sigma_fits, "train.spike_sigma", self.spike_sigma, "0 for none, or 1 or more")
        require_choice("train.precision", self.precision, ("fp32", "bf16", "fp16"))
        require_choice("train.grad_accum_dtype", self.grad_accum_dtype, ("fp32", "model"))
        peak = self.device_peak_tflops
        require(peak is None or 0 < peak < math.inf, "train.device_peak_tflops", peak, "a number above 0, or null for the device's own")
        for name in ("profile_steps", "memory_snapshot_steps"):
            steps = getattr(self, name)
            two = len(steps) == 2 and all(isinstance(step, int) for step in steps)  # OmegaConf lets a list be an element
            fits = not steps or (two and 1 <= steps[0] <= steps[1] <= self.num_steps)
            wanted = f"the first and the last step, as in [10,13], within 1 to train.num_steps={self.num_steps}"
            require(fits, f"train.{name}", str(steps).replace(" ", ""), wanted)


@dataclass
class CheckpointConfig:
    """What becomes of the checkpoints that train.checkpoint_every_steps asks for."""

    keep_last: int = 5
    """Older ones are removed; 0 keeps all."""
    keep_every: int = 0
    """Those of every so many steps are never removed; 0: none is kept for that."""
    asynchronous: bool = True
    """The step pays for a copy into the host's memory, a thread writes it; false: training waits until it is on disk."""

    def __post_init__(self) -> None:
        require_not_negative("checkpoint", self, "keep_last", "keep_every")


@dataclass
class ZeroConfig:
    """DeepSpeed ZeRO (Rajbhandari et al., 2020)."""

    stage: int = MISSING
    """What is sharded: 0 nothing, 1 optimizer state, 2 gradients too, 3 weights too."""
    offload: str = "none"
    """none; cpu, at stages 1-3: fp32 masters and optimizer state live in the host's memory, and the update runs there."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further keys for DeepSpeed's `zero_optimization`, for example overlap_comm or reduce_bucket_size."""

    def __post_init__(self) -> None:
        require(self.stage in (0, 1, 2, 3), "zero.stage", self.stage, "0, 1, 2 or 3")
        require_choice("zero.offload", self.offload, ("none", "cpu"))


@dataclass
class TrackerConfig:
    """Where the curves go besides metrics.jsonl."""

    kind: str = MISSING


@dataclass
class WandbConfig(TrackerConfig):
    """Weights & Biases."""

    kind: str = "wandb"
    mode: str = "auto"
    """auto: online where an API key is found, else offline (files in the run folder, to be synced later)."""
    project: str = "pretrain"
    entity: str | None = None

    def __post_init__(self) -> None:
        require_choice("tracker.mode", self.mode, ("auto", "online", "offline"))


@dataclass
class NoTrackerConfig(TrackerConfig):
    """metrics.jsonl alone."""

    kind: str = "none"


@dataclass
class LaunchConfig:
    """Processes of the run."""

    num_processes: int | None = None
    """One per GPU; none: as many as there are GPUs or, on a CPU, two where there are two cores."""
    timeout_seconds: int = 1800
    """How long a collective waits for the other ranks."""
    rendezvous_timeout_seconds: int = 300
    """How long the ranks wait for each other at the start."""
    interface: str | None = None
    """Network interface over which ranks of several machines meet (GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME); none: the one that leads to
    the other machines, and NCCL's own choice."""

    def __post_init__(self) -> None:
        require(self.interface != "", "launch.interface", "''", "the name of a network interface, such as eth0")
        require_positive("launch", self, "num_processes", "timeout_seconds", "rendezvous_timeout_seconds")
