"""Floating-point operations of training, by stated formulae, and the share of the hardware's peak that a run reaches (MFU).

A forward and backward pass costs 6 operations per weight and token in the matrix products, and 12 x layers x hidden x length per
token in attention (Chowdhery et al., "PaLM", 2022, appendix B). Recomputation is not counted.
"""

from pretrain.config.schema import Config
from pretrain.data.masking import max_predictions

PEAK_FLOPS_PER_SECOND = {
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
}
"""Dense bf16 peak by a part of the device's name, from NVIDIA's data sheets."""


def flops_per_sample(config: Config, vocabulary_size: int) -> float:
    """Operations of one forward and backward pass over one sequence.

    BERT's head runs on the masked positions alone (240.6 GFLOP for BERT-Large at length 128); GPT-2's on all of them
    (0.860 GFLOP per token for the 124M model at length 1024).
    """
    model, length = config.model, config.data.max_seq_length
    hidden, layers = model.hidden_size, model.num_layers
    attention = 12 * layers * hidden * length * length
    blocks = 12 * layers * hidden * hidden
    if config.objective.kind == "clm":
        embeddings = (vocabulary_size + model.max_positions) * hidden
        return 6 * (blocks + embeddings) * length + attention
    head = hidden * hidden + hidden * vocabulary_size
    return 6 * blocks * length + attention + 6 * head * max_predictions(config.objective, length)


def peak_flops_per_second(device_name: str) -> float | None:
    """The device's dense bf16 peak; None where it is not in the table."""
    return next((peak for part, peak in PEAK_FLOPS_PER_SECOND.items() if part in device_name), None)
