"""The scores of attention, recomputed from what its fused kernel kept.

A fused kernel never writes the probabilities down, and asking it to would cost what
it saves. Its autograd node keeps queries and keys; from them the scores of the
measured batch are made again, a block of rows at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_BLOCK = 1 << 22


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of some queries: [batch, heads, queries, keys]; −inf where masked."""

    logits: Tensor

    @property
    def visible(self) -> Tensor:
        """Which keys each query sees."""
        return self.logits > -math.inf

    @property
    def probabilities(self) -> Tensor:
        """The softmax; 0 for a query that sees nothing."""
        return torch.softmax(self.logits, -1).nan_to_num(0.0)


def fused(node: Any) -> Iterator[Scores]:
    """Yields the scores of a fused attention node, block by block."""
    query, key = (_four(node._saved_query), _four(node._saved_key))
    if key.shape[1] != query.shape[1]:
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    scale = getattr(node, "_saved_scale", None)
    scale = query.shape[-1] ** -0.5 if scale is None else float(scale)
    bias = _bias(node)
    causal = bool(getattr(node, "_saved_is_causal", False))
    rows, keys = query.shape[2], key.shape[2]
    step = max(1, _BLOCK // max(query.shape[1] * keys, 1))
    for sample in range(query.shape[0]):
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            scores = query[sample, :, part] @ key[sample].transpose(-1, -2) * scale
            if bias is not None:
                scores = scores + _cut(bias, sample, part)
            if causal:
                row = torch.arange(rows, device=scores.device)[part, None]
                later = torch.arange(keys, device=scores.device)[None] > row
                scores = scores.masked_fill(later, -math.inf)
            yield Scores(scores[None])


def _four(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    tensor = tensor if tensor.dtype == torch.float64 else tensor.float()
    return tensor if tensor.dim() == 4 else tensor[None]


def _bias(node: Any) -> Tensor | None:
    """Returns the additive mask, under the name that each kernel has for it."""
    for name in ("_saved_attn_mask", "_saved_attn_bias"):
        mask = getattr(node, name, None)
        if isinstance(mask, Tensor):
            if mask.dtype == torch.bool:
                return torch.zeros_like(mask, dtype=torch.float32).masked_fill(
                    ~mask, -math.inf
                )
            # Libraries write the lowest number of the type where they mean −∞.
            lowest = torch.finfo(mask.dtype).min
            return mask.detach().masked_fill(mask <= lowest / 2, -math.inf)
    return None


def _cut(bias: Tensor, sample: int, rows: slice) -> Tensor:
    while bias.dim() < 4:
        bias = bias[None]
    one = bias[sample if bias.shape[0] > 1 else 0]
    return one[:, rows] if one.shape[1] > 1 else one


def softmax_factor(result: Tensor) -> float:
    """Returns the factor of softmax on ‖δ‖², for a δ independent of it.

    J = diag(p) − ppᵀ, so ‖J‖_F² / n = Σᵢ pᵢ²(1 − 2pᵢ + Σⱼ pⱼ²) / n.
    """
    p = result.double()
    square = p.square()
    inner = square * (1 - 2 * p + square.sum(-1, keepdim=True))
    return float(inner.sum(-1).mean()) / result.shape[-1]


def mean_square_probability(node: Any) -> float:
    """Returns the factor of fused attention on the ‖δ‖² that reaches its values."""
    total, rows = 0.0, 0
    for scores in fused(node):
        p = scores.probabilities.double()
        total += float(p.square().sum())
        rows += p[..., 0].numel()
    return total / max(rows, 1)
