"""From configuration to optimizer: parameter groups and hyper-parameters."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pretrain.config.schema import AdafactorConfig, AdamWConfig, CameConfig, LambConfig, OptimizerConfig, Sm3Config

if TYPE_CHECKING:
    from torch import nn

    from came.optimizer import ShardedOptimizer


def build_optimizer(config: OptimizerConfig, model: "nn.Module", seed: int = 0) -> "ShardedOptimizer":
    """The configured optimizer over the model's parameters, in two groups: see `parameter_groups`. `seed` is the run's, for what the
    optimizer rounds stochastically."""
    import came

    groups = parameter_groups(model.parameters(), config.weight_decay)
    match config:
        case CameConfig():
            moments = dict(betas=(config.beta1, config.beta2, config.beta3), eps=(config.eps1, config.eps2))
            variants = dict(bias_correction=config.bias_correction, cautious=config.cautious, trust_ratio=config.trust_ratio)
            kept = dict(momentum_dtype=config.momentum_dtype, seed=seed, implementation=config.implementation)
            other = dict(clip_threshold=config.clip_threshold, legacy_1d=config.legacy_1d)
            return came.CAME(groups, lr=config.lr, **moments, **other, **variants, **kept)
        case AdamWConfig():
            return came.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps)
        case LambConfig():
            matrices, vectors = groups
            adapted = [{**matrices, "adapt": True}, {**vectors, "adapt": False}]
            return came.LAMB(adapted, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps)
        case AdafactorConfig():
            moments = dict(beta1=config.beta1, beta2_decay=config.beta2_decay, eps=(config.eps1, config.eps2))
            step = dict(clip_threshold=config.clip_threshold, scale_parameter=config.scale_parameter, relative_step=False)
            return came.Adafactor(groups, lr=config.lr, **moments, **step)
        case Sm3Config():
            return came.SM3(groups, lr=config.lr, momentum=config.momentum)
    raise AssertionError(f"no optimizer for {type(config).__name__}")


def parameter_groups(parameters: Iterable, weight_decay: float) -> list[dict]:
    """Matrices with weight decay; biases and normalisation weights (everything of one dimension) without."""
    decayed, spared = [], []
    for parameter in parameters:
        (decayed if parameter.dim() >= 2 else spared).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
