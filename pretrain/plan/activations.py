"""Bytes that autograd keeps of one micro-batch for its backward pass, by formula; after Korthikanti et al., "Reducing Activation
Recomputation in Large Transformer Models" (2022), section 4, for the model of `pretrain/model/`.

With T tokens in the micro-batch, H the hidden size, A heads and e bytes per element of the weights' dtype, a transformer layer keeps

    16 e T H    the layer's input, query, key, value, the attention's result (5); the normalisation in the middle: its input and its
                result (2); the wide layer before and after the activation function (4 + 4); the second normalisation's input (1)
  + 12 e T H    GPT-2 without torch.compile: transformers' GELU is made of single operations, each of which keeps a wide tensor more
                (3 x 4)
  + 2 m T H     the masks of two dropouts, m bytes per element: 1 on a GPU or compiled, e of PyTorch's on a CPU, 0 without dropout
  + 4 s T       mean and inverse deviation of two normalisations, s bytes each: 4 on a GPU, e on a CPU
  + 4 T A       the sums of the attention's exponentials, fp32. A flash kernel keeps nothing else: dropout's mask is drawn again.

Attention scores are not kept: PyTorch's flash kernels serve every layer on a GPU in bf16 and fp16, its memory-efficient ones in fp32, and
flash kernels a CPU where dropout is 0 (with dropout it falls back to operations that do keep them; this is not counted). BERT's sentence
pairs lie end to end, so T counts real tokens; the plan takes full sequences. On a CPU, and in fp32 on a GPU, they are padded for the
attention alone, whose result is then kept twice.

With activation checkpointing a layer keeps its input, e T H, and one layer at a time is whole again. Beside the layers there are

    e T H + m T H + 2 s T      the embedding: BERT, its normalisation's input, its dropout's mask; GPT-2, the mask, and the input of the
                               last normalisation
    4 V H (+ 4 V for a bias)   the head's gradient in fp32 for V rows of the vocabulary, which LossHead takes while the scores are there
    e N H x 4, GPT-2 1         what N targets keep: of BERT, the transform's input, its result, the activation's, and the gradient
"""

from dataclasses import dataclass

from pretrain.config.schema import Config
from pretrain.model.head import PIECE_ELEMENTS
from pretrain.plan.deepspeed import ITEM_BYTES


@dataclass(frozen=True)
class Device:
    """Where the model runs, as far as what autograd keeps depends on it."""

    gpu: bool = True
    compiled: bool = False
    """Whether torch.compile runs the layers."""


@dataclass(frozen=True)
class Activations:
    """Bytes of one micro-batch."""

    kept_bytes: int
    """From the forward to the backward pass."""
    recomputed_bytes: int
    """With activation checkpointing: of the one layer that is there whole."""
    head_bytes: int
    """While the head takes its loss: the scores of a piece, or the gradient on its way to the dtype of the weights."""
    layer_bytes: int
    """While one layer is taken back: three gradients as wide as it is."""

    @property
    def most_bytes(self) -> int:
        """At the worst moment: when all layers are there and the head is at work, or at the last layer's backward pass."""
        return self.kept_bytes + max(self.head_bytes, self.recomputed_bytes + self.layer_bytes)


def activations(config: Config, vocabulary_rows: int, micro_batch_size: int, device: Device = Device()) -> Activations:
    """Of a micro-batch of full sequences."""
    model, train = config.model, config.train
    item = ITEM_BYTES[train.precision]
    tokens, hidden, bert = micro_batch_size * config.data.max_seq_length, model.hidden_size, model.family == "bert"
    dropout = model.dropout > 0
    mask = (1 if device.gpu else item) * dropout
    statistic = 4 if device.gpu else item
    flash = device.gpu and train.precision != "fp32"
    padded = config.objective.kind == "mlm_nsp" and not flash

    layer = _layer_bytes(config, tokens, device, statistic) + padded * item * tokens * hidden
    rest = (item + mask) * tokens * hidden + 2 * statistic * tokens
    rest += 4 * vocabulary_rows * (hidden + bert)
    targets = targets_per_sample(config) * micro_batch_size
    rest += item * targets * hidden * (4 if bert else 1) + bert * 2 * statistic * targets
    rest += item * 2 * micro_batch_size * hidden * (config.objective.kind == "mlm_nsp")

    piece = min(targets, max(1, PIECE_ELEMENTS // vocabulary_rows)) * vocabulary_rows
    several = 4 * vocabulary_rows * hidden * (piece < targets * vocabulary_rows)
    head = max(piece * (4 + item) + several, vocabulary_rows * hidden * (4 + item))
    checkpointed = train.activation_checkpointing
    return Activations(
        kept_bytes=model.num_layers * (item * tokens * hidden if checkpointed else layer) + rest,
        recomputed_bytes=layer if checkpointed else 0,
        head_bytes=head,
        layer_bytes=3 * 4 * item * tokens * hidden,
    )


def targets_per_sample(config: Config) -> int:
    """Positions of a full sequence at which the head runs."""
    if config.objective.kind == "clm":
        return config.data.max_seq_length
    from pretrain.data.masking import max_predictions

    return max_predictions(config.objective, config.data.max_seq_length)


def _layer_bytes(config: Config, tokens: int, device: Device, statistic: int) -> int:
    model, item = config.model, ITEM_BYTES[config.train.precision]
    mask = (1 if device.gpu or device.compiled else item) * (model.dropout > 0)
    elements = 28 if model.family == "gpt2" and not device.compiled else 16
    return tokens * (model.hidden_size * (elements * item + 2 * mask) + 4 * statistic + 4 * model.num_heads)
