"""Attention for sequences laid end to end, by torch's fused kernels; transformers' models call it under the name `NAME`.

Where nothing is padded it is plain `scaled_dot_product_attention` without a mask, which torch's flash kernel takes. Sequences of
different lengths go through the flash kernel for variable lengths on a GPU that has it; elsewhere they are padded for the attention
alone, which is a small part of the work, and everything else still runs on real tokens only. Both equal attention on padded rows.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NAME = "end_to_end"


class Sequences(NamedTuple):
    """Where n sequences of at most T tokens lie in one row of tokens: see `pretrain/data/micro_batches.py`."""

    cu_seqlens: Tensor
    """int32 [n + 1]"""
    attention_mask: Tensor
    """bool [n, T]"""
    token_index: Tensor
    """int64 [tokens]"""
    flash: bool
    """Whether torch's flash kernel takes them."""

    @classmethod
    def of(cls, batch: dict[str, Tensor], hidden: Tensor, head_size: int) -> "Sequences | None":
        """Those of a micro-batch whose tokens have the hidden states `hidden`; None where they are rows without padding."""
        if "cu_seqlens" not in batch:
            return None
        flash = _has_flash(hidden.device, hidden.dtype, head_size)
        return cls(batch["cu_seqlens"], batch["attention_mask"], batch["token_index"], flash)


def use(model: nn.Module) -> None:
    """Let a transformers model attend through this module; its weights, names and export stay as they are."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attention)
    model.set_attn_implementation(NAME)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sequences: Sequences | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface.

    Args:
        module: the attention layer; `module.is_causal` says whether a token sees what follows it.
        query, key, value: [rows, heads, length, head_dim]; with `sequences` [1, heads, tokens, head_dim].
        attention_mask: none is ever needed.
        dropout: probability for an attention weight, 0 in evaluation.
        scaling: factor of the products; none: 1 / sqrt(head_dim).
        sequences: where they lie, if end to end in one row. Not causal.

    Returns:
        [rows, length, heads, head_dim], and no attention weights.
    """
    if sequences is None:
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=module.is_causal, scale=scaling)
        return mixed.transpose(1, 2), None
    rows = (tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value))  # (tokens, heads, head_dim)
    mix = _flash if sequences.flash else _padded
    return mix(*rows, sequences, dropout, scaling).unsqueeze(0), None


@lru_cache
def _has_flash(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Whether there is a kernel of FlashAttention-2 (Dao, 2023) for it."""
    return (
        device.type == "cuda"
        and dtype in (torch.float16, torch.bfloat16)
        and head_size % 8 == 0
        and head_size <= 256
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def _flash(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, dropout: float, scaling: float | None) -> Tensor:
    longest = sequences.attention_mask.size(1)
    starts = sequences.cu_seqlens
    # torch.nn.attention.varlen.varlen_attn calls the same operator, but without dropout.
    return torch.ops.aten._flash_attention_forward(
        query, key, value, starts, starts, longest, longest, dropout, False, return_debug_mask=False, scale=scaling
    )[0]


def _padded(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, dropout: float, scaling: float | None) -> Tensor:
    count, longest = sequences.attention_mask.shape
    padded = (
        _Scatter.apply(tensor, sequences.token_index, count * longest).unflatten(0, (count, longest)).transpose(1, 2)
        for tensor in (query, key, value)
    )
    mixed = F.scaled_dot_product_attention(*padded, attn_mask=sequences.attention_mask[:, None, None, :], dropout_p=dropout, scale=scaling)
    return _Gather.apply(mixed.transpose(1, 2).flatten(0, 1), sequences.token_index)


class _Scatter(torch.autograd.Function):
    """Rows to their places among `size` rows of zeros; the gradient is a gather, as no two rows share a place."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(index)
        return rows.new_zeros(size, *rows.shape[1:]).index_copy_(0, index, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return grad.index_select(0, index), None, None


class _Gather(torch.autograd.Function):
    """The rows at the places of `index`; the gradient is a scatter without adding, as no place is named twice."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = rows.size(0)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return grad.new_zeros(ctx.size, *grad.shape[1:]).index_copy_(0, index, grad), None
