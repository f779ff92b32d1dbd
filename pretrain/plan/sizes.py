"""What a plan needs to know of a model: shapes and buffers, from a model without storage."""

from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import nn

from came.layouts.foretold import Shape
from pretrain.config.schema import Config
from pretrain.model.build import Vocabulary, build_model
from pretrain.model.objective import PretrainingModel
from pretrain.optim import parameter_groups

Module = tuple[int, ...]
"""Places, in `Sizes.numels`, of the parameters that a module has beside those of the modules in it."""


@dataclass(frozen=True)
class Sizes:
    """The model of a run."""

    vocabulary: int
    """Rows of the embedding, padding included."""
    groups: tuple[tuple[Shape, ...], ...]
    """Shapes of the trainable parameters of each parameter group, in the optimizer's order."""
    buffers_bytes: int
    numels: tuple[int, ...]
    """Elements of each parameter; tied ones count once."""
    forward: tuple[Module, ...]
    """The modules, in the order in which the forward pass begins them."""
    backward: tuple[Module, ...]
    """The modules, in the order in which the backward pass begins them."""
    recomputing: tuple[Module, ...]
    """The same with activation checkpointing: each layer's forward pass comes before its backward pass."""

    @cached_property
    def parameters(self) -> int:
        """Elements of all parameters."""
        return sum(self.numels)

    @cached_property
    def largest(self) -> int:
        """Elements of the largest parameter."""
        return max(self.numels)

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """Of all groups."""
        return tuple(shape for group in self.groups for shape in group)


def model_without_storage(config: Config, vocabulary: Vocabulary) -> PretrainingModel:
    """The model that `config` trains, on torch's "meta" device: shapes alone."""
    with torch.device("meta"):
        return build_model(config, vocabulary)


def sizes_of(model: PretrainingModel, vocabulary: Vocabulary) -> Sizes:
    """The sizes of a model on any device, before it is sharded."""
    places = {param: place for place, param in enumerate(model.parameters())}
    layers = set(model.layers)

    def begun(module: nn.Module) -> list[Module]:
        return [*_own(module, places), *(found for child in module.children() for found in begun(child))]

    def undone(module: nn.Module, recompute: bool) -> list[Module]:
        children = [found for child in reversed([*module.children()]) for found in undone(child, recompute)]
        again = begun(module) if recompute and module in layers else []
        return [*again, *_own(module, places), *children]

    return Sizes(
        vocabulary=vocabulary.padded_size,
        groups=tuple(tuple(tuple(param.shape) for param in group["params"]) for group in parameter_groups(model.parameters(), 0.0)),
        buffers_bytes=sum(buffer.numel() * buffer.element_size() for buffer in model.buffers()),
        numels=tuple(prod(param.shape) for param in places),
        forward=tuple(begun(model)),
        backward=tuple(undone(model, False)),
        recomputing=tuple(undone(model, True)),
    )


def _own(module: nn.Module, places: dict[nn.Parameter, int]) -> list[Module]:
    """The module, unless it is a list, which nobody calls."""
    called = type(module).__name__ != "ModuleList"
    return [tuple(places[param] for param in module.parameters(recurse=False))] if called else []
