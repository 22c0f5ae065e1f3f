"""Entropy and logits of attention heads against the written-out softmax."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.deep.nets import batch, deep, normal
from vgaudit.flow import AttentionFlow

HEADS, TOKENS, WIDTH = 4, 7, 32


class Attention(nn.Module):
    """Self-attention by one of the ways that people write it."""

    def __init__(self, how: str, mask: Tensor | None = None, size: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.num_heads, self.how, self.mask = HEADS, how, mask
        with torch.no_grad():
            self.project.weight.mul_(size)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        parts = self.project(x).chunk(3, -1)
        shape = (x.shape[0], x.shape[1], HEADS, WIDTH // HEADS)
        return tuple(part.reshape(shape).transpose(1, 2) for part in parts)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        if self.how == "fused":
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        elif self.how == "causal":
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.how == "scale":
            mixed = F.scaled_dot_product_attention(q, k, v, scale=0.7)
        else:
            scores = q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
            if self.mask is not None:
                scores = scores.masked_fill(~self.mask, -math.inf)
            mixed = scores.softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


def oracle(
    q: Tensor, k: Tensor, *, scale: float, mask: Tensor | None = None
) -> tuple[list[float], list[float]]:
    """Returns entropy / log n and the largest logit of each head, query by query."""
    scores = (q @ k.transpose(-1, -2) * scale).double()
    shares, tops = [], []
    for head in range(q.shape[1]):
        values, largest = [], 0.0
        for sample in range(q.shape[0]):
            for query in range(q.shape[2]):
                seen = torch.ones(k.shape[2], dtype=torch.bool)
                if mask is not None:
                    seen = mask[query]
                row = scores[sample, head, query][seen]
                largest = max(largest, float(row.abs().max()))
                if len(row) > 1:
                    p = row.softmax(0)
                    values.append(float(-(p * p.log()).sum()) / math.log(len(row)))
        shares.append(sum(values) / len(values))
        tops.append(largest)
    return shares, tops


def only(model: nn.Module, x: Tensor) -> AttentionFlow:
    (found,) = deep(model, batch(x)).attention
    return found


CAUSAL = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
BAND = (torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)).abs() < 3


@pytest.mark.parametrize(
    ("how", "mask", "seen", "scale"),
    [
        ("fused", None, None, None),
        ("fused", BAND, BAND, None),
        ("causal", None, CAUSAL, None),
        ("scale", None, None, 0.7),
        ("written", None, None, None),
        ("written", BAND, BAND, None),
    ],
)
@pytest.mark.parametrize("size", [1.0, 6.0])
def test_every_way_of_attention_gives_the_same_figures(
    how: str, mask: Tensor | None, seen: Tensor | None, scale: float | None, size: float
) -> None:
    model, x = Attention(how, mask, size), normal(3, TOKENS, WIDTH)
    with torch.no_grad():
        q, k, _ = model.split(x)
    entropy, largest = oracle(q, k, scale=scale or (WIDTH // HEADS) ** -0.5, mask=seen)
    found = only(model, x)

    assert (found.queries, found.keys) == (TOKENS, TOKENS)
    assert found.entropy == pytest.approx(entropy, rel=1e-4)
    assert found.largest_logit == pytest.approx(largest, rel=1e-4)


@pytest.mark.parametrize("weights", [True, False])
def test_multi_head_attention_module(weights: bool) -> None:
    class Net(nn.Module):
        """The module of torch, asked for its weights or not."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attn(x, x, x, need_weights=weights)[0]

    model, x = Net(), normal(3, TOKENS, WIDTH)
    projected = F.linear(x, model.attn.in_proj_weight, model.attn.in_proj_bias)
    q, k, _ = (
        part.reshape(3, TOKENS, HEADS, -1).transpose(1, 2).detach()
        for part in projected.chunk(3, -1)
    )
    entropy, largest = oracle(q, k, scale=(WIDTH // HEADS) ** -0.5)
    found = only(model, x)

    assert found.layer == "attn"
    assert found.entropy == pytest.approx(entropy, rel=1e-4)
    assert found.largest_logit == pytest.approx(largest, rel=1e-4)


def test_heads_that_look_at_one_key_have_collapsed() -> None:
    found = only(Attention("fused", size=60.0), normal(4, TOKENS, WIDTH))

    assert max(found.entropy) < 0.1
    assert min(found.collapsed) > 0.8
    assert min(found.largest_logit) > 100


def test_a_softmax_at_the_output_is_no_attention() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 5), nn.Softmax(-1))

    assert deep(model, batch(normal(4, 3, 8))).attention == ()


def test_grouped_queries_share_their_keys() -> None:
    class Grouped(nn.Module):
        """Four query heads on two key heads."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 16)

        def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
            q = self.query(x).reshape(*x.shape[:2], 4, 8).transpose(1, 2)
            return q, self.key(x).reshape(*x.shape[:2], 2, 8).transpose(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            q, k = self.split(x)
            out = F.scaled_dot_product_attention(q, k, k, enable_gqa=True)
            return out.transpose(1, 2).reshape(x.shape)

    model, x = Grouped(), normal(2, TOKENS, WIDTH)
    with torch.no_grad():
        q, k = model.split(x)
    entropy, _ = oracle(q, k.repeat_interleave(2, 1), scale=8**-0.5)

    assert only(model, x).entropy == pytest.approx(entropy, rel=1e-4)
