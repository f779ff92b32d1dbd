"""The language-model head with its loss, in pieces, so that the scores of all tokens over the vocabulary never exist at once.

torch 2.13's own `linear_cross_entropy` works alike, but returns the sum in bfloat16 where the weights are, and scales gradients in it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.data.masking import IGNORED_LABEL

PIECE_ELEMENTS = 2**26
"""Scores (tokens x vocabulary) held at a time: 256 MiB in float32, and still products large enough for any device."""

_FLOAT16_SCALE = 1024.0


class LossHead(nn.Linear):
    """A linear layer onto the vocabulary that takes the targets too and returns losses in place of scores.

    Its weight is used inside its own `forward` alone, which is where ZeRO-3 gathers it; in the model it takes the place of transformers'
    layer with the same parameters, tied or not, under the same names.
    """

    @classmethod
    def of(cls, linear: nn.Linear) -> "LossHead":
        """The head with the parameters, not copies, of a plain layer."""
        head = cls(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        head.weight, head.bias = linear.weight, linear.bias
        return head

    def forward(self, hidden: Tensor, labels: Tensor) -> Any:
        """The cross-entropies (nats, float32) of `hidden` [tokens, hidden] with `labels` int64 [tokens]; -100 counts nothing.

        Returns:
            In training their sum, a scalar. In evaluation each token's, and the token that scores highest (int64), both [tokens].
        """
        rows = max(1, PIECE_ELEMENTS // self.out_features)
        if self.training:
            return _CrossEntropySum.apply(hidden, self.weight, self.bias, labels, rows)
        pieces = [self._scores(*piece) for piece in zip(hidden.split(rows), labels.split(rows), strict=True)]
        losses, best = zip(*pieces)
        return torch.cat(losses), torch.cat(best)

    def _scores(self, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        scores = super().forward(hidden)
        return F.cross_entropy(scores.float(), labels, reduction="none"), scores.argmax(-1)


class _CrossEntropySum(torch.autograd.Function):
    """Each piece's gradients are taken while its scores are there, so that nothing is computed twice: 3 products, as without pieces.

    Sums over pieces are float32; gradients are rounded once, to the dtype of what they belong to. In float16 they are held larger, since
    the loss scale that keeps small ones from vanishing comes only with `grad_total`.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, rows: int) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        grad_hidden = torch.empty_like(hidden)
        grad_weight: Tensor | None = None
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        pieces = zip(hidden.split(rows), labels.unsqueeze(1).split(rows), grad_hidden.split(rows), strict=True)
        for piece, targets, grad_piece in pieces:
            counts = (targets != IGNORED_LABEL).to(torch.float32)  # 0 or 1, (tokens, 1); put where it costs nothing over the vocabulary
            targets = targets.clamp_min(0)
            log_probs = F.log_softmax(F.linear(piece, weight, bias), dim=-1, dtype=torch.float32)
            total -= (log_probs.gather(1, targets) * counts).sum()
            grad_scores = log_probs.exp_()
            grad_scores.scatter_add_(1, targets, grad_scores.new_full((), -1.0).expand_as(targets))
            if weight.dtype == torch.float16:
                grad_scores *= _FLOAT16_SCALE
            if grad_bias is not None:
                grad_bias += grad_scores.t().mv(counts.squeeze(1))
            grad_scores = grad_scores.to(weight.dtype)
            torch.mm(grad_scores, weight, out=grad_piece).mul_(counts)
            of_piece = _product_in_float32(grad_scores.t(), piece * counts.to(piece.dtype))
            grad_weight = of_piece if grad_weight is None else grad_weight.add_(of_piece)
        ctx.save_for_backward(grad_hidden, torch.zeros_like(weight) if grad_weight is None else grad_weight, grad_bias)
        ctx.dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        if ctx.dtype == torch.float16:
            grad_total = grad_total / _FLOAT16_SCALE
        of_bias = None if grad_bias is None else (grad_bias * grad_total).to(ctx.dtype)
        return (grad_hidden * grad_total).to(ctx.dtype), (grad_weight * grad_total).to(ctx.dtype), of_bias, None, None


def _product_in_float32(left: Tensor, right: Tensor) -> Tensor:
    """Their matrix product without rounding to their own dtype."""
    if left.dtype == torch.float32:
        return left @ right
    return torch.mm(left, right, out_dtype=torch.float32) if left.is_cuda else left.float() @ right.float()
