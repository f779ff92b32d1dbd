"""The linear probe: a model whose gradients are known and do not depend on its weights, so that it tests the optimizer alone.

The loss is <w, G> with G drawn from (step, micro-step, rank). The shapes are odd: whatever the number of ranks, cuts fall in the
middle of rows, on vectors, and inside tensors of three and four dimensions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from came import CAME, AdamW
from came.reference import Reference, adamw_step, came_step
from pretrain import distributed
from pretrain.batch_plan import BatchPlan
from pretrain.config.schema import Config, RunConfig, TrainConfig, ZeroConfig
from pretrain.engine import Engine
from pretrain.model.objective import PretrainingModel

SHAPES = [(61, 30), (17,), (3, 30, 13), (7, 101), (1, 5), (101, 7), (2, 3, 5, 7), (33,), (128, 3)]
HYPER = dict(lr=2e-4, weight_decay=0.01)
OPTIMIZERS = {"came": (CAME, came_step), "adamw": (AdamW, adamw_step)}


@dataclass(frozen=True)
class Cell:
    """One cell of the parity matrix."""

    optimizer: str
    stage: int
    precision: str
    accumulation: int
    steps: int = 20
    grad_clip: float = 2.0
    offload: str = "none"

    def __str__(self) -> str:
        offload = "-offload" if self.offload == "cpu" else ""
        return f"{self.optimizer}-stage{self.stage}{offload}-{self.precision}-accumulation{self.accumulation}"


class Leaf(nn.Module):
    """One weight in a module of its own, so that ZeRO-3 gathers it."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape) * 0.1)

    def forward(self, gradient: Tensor) -> Tensor:
        return (self.weight * gradient.to(self.weight.dtype)).float().sum()


class LinearProbe(PretrainingModel):
    """loss = <w, G(key)>; one valid target per micro-batch."""

    loss_names = ("probe",)

    def __init__(self) -> None:
        super().__init__(nn.ModuleList(Leaf(shape) for shape in SHAPES))

    def valid_counts(self, batch: dict[str, Tensor]) -> dict[str, int]:
        return {"probe": 1}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        gradients = draw_gradients(*batch["key"].tolist())
        return {"probe": sum(leaf(gradient) for leaf, gradient in zip(self.model, gradients, strict=True))}


def draw_gradients(step: int, micro_step: int, rank: int) -> list[Tensor]:
    """Normal gradients whose signs are the step's: bf16 values of both signs often add up to exactly nothing, and what is left of
    such a sum is the rounding of whoever added, which AdamW would divide by itself and blow up to a full step."""
    signs = torch.Generator().manual_seed(step)
    sizes = torch.Generator().manual_seed(1000003 * step + 1009 * micro_step + rank)
    return [
        torch.randn(shape, generator=sizes).abs() * torch.randn(shape, generator=signs).sign() * (index + 1) * 0.1
        for index, shape in enumerate(SHAPES)
    ]


def make_probe(probe: type[LinearProbe] = LinearProbe) -> LinearProbe:
    torch.manual_seed(0)
    return probe()


def probe_config(cell: Cell, world_size: int) -> tuple[Config, BatchPlan]:
    train = TrainConfig(
        global_batch_size=cell.accumulation * world_size,
        micro_batch_size=1,
        num_steps=cell.steps,
        precision=cell.precision,
        grad_clip=cell.grad_clip,
    )
    config = Config(run=RunConfig(name="probe"), train=train, zero=ZeroConfig(stage=cell.stage, offload=cell.offload))
    return config, BatchPlan(train.global_batch_size, 1, world_size)


def start(cell: Cell, probe: type[LinearProbe] = LinearProbe) -> Engine:
    model = make_probe(probe)
    optimizer = OPTIMIZERS[cell.optimizer][0](model.parameters(), **HYPER)
    return Engine(model, optimizer, *probe_config(cell, distributed.world_size()))


def train(engine: Engine, cell: Cell, first_step: int = 0) -> list[float]:
    """Train to `cell.steps` and return the gradient norms."""
    norms = []
    for step in range(first_step, cell.steps):
        keys = [(step, micro_step, distributed.rank()) for micro_step in range(cell.accumulation)]
        engine.accumulate([{"key": torch.tensor(key)} for key in keys])
        result = engine.step(lr=HYPER["lr"])
        assert result.applied
        norms.append(result.grad_norm)
    return norms


Piece = tuple[str, int, int, Tensor]


def local_masters(engine: Engine) -> list[Piece]:
    """This rank's master weights: (parameter, start, stop, values)."""
    pieces = []
    for place in engine.optimizer.places():
        for shard in place.shards:
            values = shard.of(place.handed.detach()).clone()
            pieces.append((engine.names[shard.param], shard.interval.start, shard.interval.stop, values))
    return pieces


def assemble(pieces_by_rank: list[list[Piece]]) -> list[Tensor]:
    """Whole master weights from every rank's pieces; each element must be there, and alike wherever it is there twice."""
    names = [name for name, _ in make_probe().named_parameters()]
    whole = {name: torch.full(shape, torch.nan).flatten() for name, shape in zip(names, SHAPES, strict=True)}
    for pieces in pieces_by_rank:
        for name, start_at, stop, values in pieces:
            there = whole[name][start_at:stop]
            assert bool((there.isnan() | (there == values)).all()), f"{name} differs between ranks"
            whole[name][start_at:stop] = values
    assert all(bool(tensor.isfinite().all()) for tensor in whole.values()), "elements that no rank updates"
    return [tensor.view(shape) for tensor, shape in zip(whole.values(), SHAPES, strict=True)]


def reference_masters(cell: Cell, world_size: int) -> tuple[list[Tensor], list[Tensor], list[float]]:
    """(initial weights, final weights, gradient norms) of the whole-tensor algorithm in fp32."""
    low = {"fp32": torch.float32, "bf16": torch.bfloat16}[cell.precision]
    masters = [param.detach().to(low).float() for param in make_probe().parameters()]
    initial = [master.clone() for master in masters]
    reference = Reference(masters, OPTIMIZERS[cell.optimizer][1], **HYPER)
    norms = []
    for step in range(cell.steps):
        mean = [torch.zeros(shape, dtype=torch.float64) for shape in SHAPES]
        for micro_step in range(cell.accumulation):
            for rank in range(world_size):
                for total, gradient in zip(mean, draw_gradients(step, micro_step, rank), strict=True):
                    total.add_(gradient.to(low).double())
        mean = [(total / (cell.accumulation * world_size)).float() for total in mean]
        norm = float(torch.stack([gradient.norm() for gradient in mean]).norm())
        norms.append(norm)
        reference.step([gradient * min(1.0, cell.grad_clip / (norm + 1e-6)) for gradient in mean])
    return initial, masters, norms


def errors(found: list[Tensor], wanted: list[Tensor], initial: list[Tensor]) -> tuple[float, float]:
    """(largest max|w - ref| / max|ref|, largest |dw - dref| / |dref|) over the parameters, in float64."""
    weight, update = 0.0, 0.0
    for mine, reference, before in zip(found, wanted, initial, strict=True):
        mine, reference, before = mine.double(), reference.double(), before.double()
        weight = max(weight, float((mine - reference).abs().max() / reference.abs().max()))
        update = max(update, float((mine - reference).norm() / (reference - before).norm()))
    return weight, update
