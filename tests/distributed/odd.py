"""A model with what real ones have beside plain weights: several groups, a frozen, an unused, an empty and a tied parameter."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from came import CAME
from came.reference import Reference, came_step
from came.verify.probe import Piece

SHAPES = {"matrix": (13, 7), "stack": (3, 5, 4), "vector": (17,), "tied": (9, 8), "frozen": (6, 5), "unused": (4, 3), "aside.empty": (0, 4)}
DECAYED = ("matrix", "stack", "tied", "frozen", "unused", "aside.empty")
FAST = {"lr": 1e-3, "betas": (0.8, 0.99, 0.999), "weight_decay": 0.0}
SLOW = {"lr": 2e-4, "weight_decay": 0.01}
STEPS = 10


class Odd(nn.Module):
    """loss = <matrix, G> + <stack, G> + <vector, G> + <tied, G> + <the same weight under its other name, G>."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        for name, shape in SHAPES.items():
            if name != "aside.empty":
                self.register_parameter(name, nn.Parameter(torch.randn(shape) * 0.1, requires_grad=name != "frozen"))
        self.aside = nn.ParameterDict({"empty": torch.empty(SHAPES["aside.empty"])})  # apart: ZeRO-3 cannot gather what has no elements
        self.other_name = self.tied

    def forward(self, gradients: Sequence[Tensor]) -> Tensor:
        used = [self.matrix, self.stack, self.vector, self.tied, self.other_name]
        return torch.stack([(weight * gradient.to(weight)).sum() for weight, gradient in zip(used, gradients, strict=True)]).sum()


def groups(model: nn.Module) -> list[dict]:
    """Two groups with hyper-parameters of their own; the vector alone is fast."""
    named = dict(model.named_parameters())
    return [{"params": [named[name] for name in DECAYED], **SLOW}, {"params": [named["vector"]], **FAST}]


def draw(step: int, rank: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1009 * step + rank)
    return [torch.randn(SHAPES[name], generator=generator) for name in ("matrix", "stack", "vector", "tied", "tied")]


def train(forward: Callable[[Sequence[Tensor]], Tensor], backward_and_step: Callable[[Tensor], None], rank: int) -> None:
    for step in range(STEPS):
        backward_and_step(forward(draw(step, rank)))


def make_optimizer(model: nn.Module) -> CAME:
    return CAME(groups(model))


def answer(world_size: int, unused_gradient: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights before and after, by name, in float64: in float32 the reference's second moment of gradients that are all zero would be
    zero too. `unused_gradient`: "none" where the engine leaves it out, "zero" where it makes one up."""
    named = {name: param.detach().double() for name, param in Odd().named_parameters()}
    initial = {name: weights.clone() for name, weights in named.items()}
    moved = ["matrix", "stack", "tied"] + (["unused"] if unused_gradient == "zero" else [])
    slow = Reference([named[name] for name in moved], came_step, **SLOW)
    fast = Reference([named["vector"]], came_step, **FAST)
    for step in range(STEPS):
        by_rank = [draw(step, rank) for rank in range(world_size)]
        matrix, stack, vector, tied, other = (sum(drawn).double() / world_size for drawn in zip(*by_rank, strict=True))
        slow.step([matrix, stack, tied + other] + [torch.zeros(SHAPES["unused"], dtype=torch.float64)] * (len(moved) - 3))
        fast.step([vector])
    return initial, named


def check(pieces_by_rank: Sequence[Sequence[Piece]], world_size: int, unused_gradient: str) -> None:
    """Every trained element is somewhere, alike wherever it is twice, and within rounding of the whole-tensor algorithm."""
    initial, wanted = answer(world_size, unused_gradient)
    whole = {name: torch.full((torch.Size(shape).numel(),), torch.nan) for name, shape in SHAPES.items()}
    for piece in (piece for held in pieces_by_rank for piece in held):
        there = whole[piece.name][piece.start : piece.stop]
        assert bool((there.isnan() | (there == piece.values)).all()), piece.name
        whole[piece.name][piece.start : piece.stop] = piece.values
    for name in SHAPES:
        mine, right, before = whole[name].double(), wanted[name].flatten(), initial[name].flatten()
        if name == "frozen" and bool(mine.isnan().all()):
            continue  # DeepSpeed does not hand it to the optimizer
        assert bool(mine.isfinite().all()), f"elements of {name} that no rank updates"
        if torch.equal(right, before):
            assert torch.equal(mine, before), f"{name} moved"
        else:
            assert float((mine - right).abs().max() / right.abs().max()) <= 5e-7, name
            if name != "unused":  # decay alone moves it by less than the rounding of its weights
                assert float((mine - right).norm() / (right - before).norm()) <= 1e-5, name
