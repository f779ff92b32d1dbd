"""From configuration to optimizer: parameter groups and hyper-parameters."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pretrain.config.schema import AdamWConfig, CameConfig, OptimizerConfig

if TYPE_CHECKING:
    from torch import nn

    from came.optimizer import ShardedOptimizer


def build_optimizer(config: OptimizerConfig, model: "nn.Module") -> "ShardedOptimizer":
    """The configured optimizer over the model's parameters, in two groups: see `parameter_groups`."""
    import came

    groups = parameter_groups(model.parameters(), config.weight_decay)
    if isinstance(config, CameConfig):
        betas, eps = (config.beta1, config.beta2, config.beta3), (config.eps1, config.eps2)
        return came.CAME(groups, lr=config.lr, betas=betas, eps=eps, clip_threshold=config.clip_threshold)
    assert isinstance(config, AdamWConfig)
    return came.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps)


def parameter_groups(parameters: Iterable, weight_decay: float) -> list[dict]:
    """Matrices with weight decay; biases and normalisation weights (everything of one dimension) without."""
    decayed, spared = [], []
    for parameter in parameters:
        (decayed if parameter.dim() >= 2 else spared).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
