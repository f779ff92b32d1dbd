"""The linear probe of `came.verify`, trained through the harness's own engine."""

from dataclasses import dataclass

import torch
from torch import Tensor

from came.verify.probe import Cell, Piece, Probe, draw_gradients, pieces
from came.verify.probe import assemble as assemble_by_name
from pretrain import distributed
from pretrain.batch_plan import BatchPlan
from pretrain.config.schema import Config, RunConfig, TrainConfig, ZeroConfig
from pretrain.engine import Engine
from pretrain.model.objective import PretrainingModel


@dataclass(frozen=True)
class OffloadedCell(Cell):
    """A cell whose masters and optimizer state lie in the host's memory."""

    def __str__(self) -> str:
        return f"{super().__str__()}-offload"


class LinearProbe(PretrainingModel):
    """loss = <w, G(key)>; one valid target per micro-batch."""

    loss_names = ("probe",)

    def __init__(self) -> None:
        super().__init__(Probe())

    def valid_counts(self, batch: dict[str, Tensor]) -> dict[str, int]:
        return {"probe": 1}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"probe": self.model(draw_gradients(*batch["key"].tolist()))}


def probe_config(cell: Cell, world_size: int) -> tuple[Config, BatchPlan]:
    train = TrainConfig(
        global_batch_size=cell.accumulation * world_size,
        micro_batch_size=1,
        num_steps=cell.steps,
        precision=cell.precision,
        grad_clip=cell.grad_clip,
    )
    offload = "cpu" if isinstance(cell, OffloadedCell) else "none"
    config = Config(run=RunConfig(name="probe"), train=train, zero=ZeroConfig(stage=cell.stage, offload=offload))
    return config, BatchPlan(train.global_batch_size, 1, world_size)


def start(cell: Cell, probe: type[LinearProbe] = LinearProbe) -> Engine:
    model = probe()
    optimizer = cell.contender.make(model.parameters(), **cell.contender.hyper)
    return Engine(model, optimizer, *probe_config(cell, distributed.world_size()))


def train(engine: Engine, cell: Cell, first_step: int = 0) -> list[float]:
    """Train to `cell.steps` and return the gradient norms."""
    norms = []
    for step in range(first_step, cell.steps):
        keys = [(step, micro_step, distributed.rank()) for micro_step in range(cell.accumulation)]
        engine.accumulate([{"key": torch.tensor(key)} for key in keys])
        result = engine.step(lr=cell.contender.hyper["lr"])
        assert result.applied
        norms.append(result.grad_norm)
    return norms


def local_masters(engine: Engine) -> list[Piece]:
    """This rank's master weights."""
    return pieces(engine.optimizer, engine.names)


def assemble(pieces_by_rank: list[list[Piece]]) -> list[Tensor]:
    """Whole master weights from every rank's pieces."""
    return assemble_by_name(pieces_by_rank, [name for name, _ in LinearProbe().named_parameters()])
