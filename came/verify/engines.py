"""What shards the probe: DeepSpeed at one of its stages, or FSDP2. Each trains one cell on this rank."""

import collections
import contextlib
import io
import logging
import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from came.verify.probe import FSDP2, Cell, Piece, Probe, draw_gradients, pieces


@dataclass(frozen=True)
class Outcome:
    """What one rank held when a cell had been trained."""

    pieces: list[Piece]
    state_bytes: int


def train(cell: Cell) -> Outcome:
    """Train the cell's probe on this rank; a collective call."""
    model = Probe().to(device())
    return _train_fsdp2(cell, model) if cell.stage == FSDP2 else _train_deepspeed(cell, model)


def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def deepspeed_config(stage: int, precision: str, accumulation: int, grad_clip: float) -> dict[str, Any]:
    """What exactness asks of DeepSpeed: gradients that are accumulated, sent and added in fp32."""
    zero: dict[str, Any] = {"stage": stage}
    if stage == 2 and precision == "bf16" and dist.get_world_size() & (dist.get_world_size() - 1):
        # Reduce-scatter divides the bf16 bucket by the number of ranks before it adds: exact for powers of two only.
        zero["reduce_scatter"] = False
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": grad_clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "communication_data_type": "fp32",
    }
    if precision == "bf16":
        config["bf16"] = {"enabled": True}
        if stage:  # stage 0 does not have it
            config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config


def import_deepspeed() -> Any:
    """DeepSpeed, quiet, and on a CPU without the optional operator that it would compile for a minute."""
    import deepspeed
    import deepspeed.ops

    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__ = collections.defaultdict(bool)
    deepspeed.utils.logger.setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*`torch.distributed.*` is deprecated", category=FutureWarning)  # DeepSpeed's own calls
    return deepspeed


def _train_deepspeed(cell: Cell, model: Probe) -> Outcome:
    deepspeed = import_deepspeed()
    optimizer = cell.contender.make(model.parameters(), **cell.contender.hyper)
    names = {param: name for name, param in model.named_parameters()}
    config = deepspeed_config(int(cell.stage), cell.precision, cell.accumulation, cell.grad_clip)
    with contextlib.redirect_stdout(io.StringIO()):  # its memory notes
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    for step in range(cell.steps):
        for micro_step in range(cell.accumulation):
            engine.backward(engine(draw_gradients(step, micro_step, dist.get_rank())))
            engine.step()
    outcome = Outcome(pieces(optimizer, names), optimizer.state_bytes())
    engine.destroy()
    return outcome


def _train_fsdp2(cell: Cell, model: Probe) -> Outcome:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device().type, (dist.get_world_size(),))
    low = torch.bfloat16 if cell.precision == "bf16" else torch.float32
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32)
    sharded = fully_shard(model, mesh=mesh, mp_policy=policy)
    optimizer = cell.contender.make(model.parameters(), **cell.contender.hyper)
    for step in range(cell.steps):
        for micro_step in range(cell.accumulation):
            sharded.set_requires_gradient_sync(micro_step == cell.accumulation - 1)
            (model(draw_gradients(step, micro_step, dist.get_rank())) / cell.accumulation).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), cell.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
    names = {param: name for name, param in model.named_parameters()}
    return Outcome(pieces(optimizer, names), optimizer.state_bytes())
