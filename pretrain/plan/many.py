"""The plan for any number of ranks: memory, communication and time of every optimizer at every ZeRO stage, without a GPU or data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from came.optimizer import ShardedOptimizer
from pretrain.batch_plan import BatchPlan
from pretrain.config.schema import (
    AUTO,
    AdafactorConfig,
    AdamWConfig,
    CameConfig,
    Config,
    LambConfig,
    OptimizerConfig,
    Sm3Config,
    TrainConfig,
)
from pretrain.model.acceleration import is_compiled
from pretrain.model.build import Vocabulary
from pretrain.optim import build_optimizer
from pretrain.plan.activations import Device, activations
from pretrain.plan.communication import Communication, communication
from pretrain.plan.deepspeed import at_stage, runs_at_stage_0, zero_of
from pretrain.plan.gathering import gathering
from pretrain.plan.memory import Memory, memory, updated_elements
from pretrain.plan.roofline import Hardware, StepTime, step_time
from pretrain.plan.sizes import Sizes, model_without_storage, sizes_of

OPTIMIZERS: dict[str, type[OptimizerConfig]] = {
    "came": CameConfig,
    "adamw": AdamWConfig,
    "lamb": LambConfig,
    "adafactor": AdafactorConfig,
    "sm3": Sm3Config,
}
STAGES = (0, 1, 2, 3)


@dataclass(frozen=True)
class Cell:
    """One optimizer at one stage."""

    optimizer: str
    stage: int
    memory: Memory
    communication: Communication
    time: StepTime


@dataclass(frozen=True)
class ManyRanks:
    """Of one run's settings; its own optimizer with its own hyper-parameters, the others with their defaults."""

    config: Config
    sizes: Sizes
    batch: BatchPlan
    compiled: tuple[int, ...]
    """Stages at which torch.compile runs the layers."""
    hardware: Hardware
    cells: tuple[Cell, ...]

    @property
    def stage_0_is_a_stand_in(self) -> bool:
        """Whether stage 0 is planned with train.grad_accum_dtype=model, as the run's own precision is refused there."""
        return any(cell.stage == 0 for cell in self.cells) and not runs_at_stage_0(self.config.train)


def plan_ranks(
    config: Config,
    vocabulary: Vocabulary,
    world_size: int,
    optimizers: Sequence[str] = tuple(OPTIMIZERS),
    stages: Sequence[int] = STAGES,
    hardware: Hardware = Hardware(),
) -> ManyRanks:
    """The plan for `world_size` ranks. Raises UserError where they cannot share the global batch evenly."""
    batch = _batch(config.train, world_size)
    model = model_without_storage(config, vocabulary)
    sizes = sizes_of(model, vocabulary)
    built = {name: build_optimizer(_settings(config, name), model) for name in optimizers}
    cells = [cell for stage in stages for cell in _at_stage(at_stage(config, stage), sizes, batch, built, hardware)]
    compiled = tuple(stage for stage in stages if is_compiled(at_stage(config, stage), on_gpu=True))
    return ManyRanks(config, sizes, batch, compiled, hardware, tuple(cells))


def _batch(train: TrainConfig, world_size: int) -> BatchPlan:
    """With the run's micro-batch or, where it does not divide the global batch among so many ranks, the largest smaller one that does."""
    wanted = 1 if train.micro_batch_size == AUTO else int(train.micro_batch_size)
    fitting = (size for size in range(wanted, 1, -1) if train.global_batch_size % (size * world_size) == 0)
    return BatchPlan.make(train.global_batch_size, next(fitting, 1), world_size)


def _at_stage(config: Config, sizes: Sizes, batch: BatchPlan, built: dict[str, ShardedOptimizer], hardware: Hardware) -> Iterator[Cell]:
    zero, ranks, recompute = zero_of(config), batch.world_size, config.train.activation_checkpointing
    gathered = gathering(sizes, zero, recompute) if zero.stage == 3 and ranks > 1 else None
    kept = activations(config, sizes.vocabulary, batch.micro_batch_size, Device(compiled=is_compiled(config, on_gpu=True)))
    for name, optimizer in built.items():
        sent = communication(sizes, optimizer, zero, ranks, batch.gradient_accumulation_steps, gathered)
        share = updated_elements(sizes, zero, ranks)
        time = step_time(config, sizes.vocabulary, optimizer.rule, zero, share, sent, batch.global_batch_size // ranks, ranks, hardware)
        yield Cell(name, zero.stage, memory(sizes, optimizer.rule, zero, ranks, kept, gathered), sent, time)


def _settings(config: Config, optimizer: str) -> OptimizerConfig:
    return config.optimizer if config.optimizer.name == optimizer else OPTIMIZERS[optimizer]()
