"""How the transformer layers are run: compiled, or their activations computed again in the backward pass."""

from pretrain.config.schema import Config
from pretrain.model.objective import PretrainingModel


def accelerate(model: PretrainingModel, config: Config, on_gpu: bool) -> None:
    """Set up `train.activation_checkpointing` and `train.compile` on a model that is going to be trained; its names stay as they are."""
    if config.train.activation_checkpointing:
        # transformers 5.23 has renamed it
        enable = getattr(model.model, "activation_checkpointing_enable", None) or model.model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    if is_compiled(config, on_gpu):
        for layer in model.layers:  # all of one kind, so that one graph serves them all
            layer.compile(dynamic=True)


def is_compiled(config: Config, on_gpu: bool) -> bool:
    """Whether torch.compile is used: as `train.compile` says, else on a GPU below ZeRO-3."""
    if config.train.compile is None:
        return on_gpu and config.zero.stage < 3
    return config.train.compile
