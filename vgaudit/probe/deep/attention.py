"""Entropy and largest logit of every attention head, from the graph.

Fused kernels and the math path alike leave a node behind, whichever function was
called: ``scaled_dot_product_attention``, ``nn.MultiheadAttention``, or a softmax over
a product of queries and keys.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.flow import AttentionFlow
from vgaudit.probe import graph as graphs
from vgaudit.probe import operations
from vgaudit.probe.deep.live import Live
from vgaudit.probe.deep.scores import fused

COLLAPSED = 0.05
"""Entropy / log n below which a query looks at one key."""

_PRODUCTS = {"Bmm": ("self", "mat2"), "Baddbmm": ("batch1", "batch2")}
_STEPS = 8


@dataclass(slots=True)
class _Sums:
    """What the heads of one call did so far."""

    keys: int = 0
    queries: int = 0
    entropy: Tensor = field(default_factory=lambda: torch.zeros(()))
    collapsed: Tensor = field(default_factory=lambda: torch.zeros(()))
    counted: Tensor = field(default_factory=lambda: torch.zeros(()))
    largest: Tensor = field(default_factory=lambda: torch.tensor(-math.inf))

    def add(self, p: Tensor, visible: Tensor, logits: Tensor | None) -> None:
        """Adds probabilities [batch, heads, queries, keys] and their logits."""
        p = p.double()
        n = visible.sum(-1).double()
        entropy = -(p * torch.where(p > 0, p, 1.0).log()).sum(-1)
        many = n > 1
        share = torch.where(many, entropy / torch.where(many, n, 2.0).log(), 0.0)
        self.entropy = self.entropy.to(p) + share.sum((0, 2))
        self.collapsed = self.collapsed.to(p) + ((share < COLLAPSED) & many).sum((0, 2))
        self.counted = self.counted.to(p) + many.sum((0, 2))
        if logits is not None:
            top = logits.double().abs().masked_fill(~visible, -math.inf)
            self.largest = torch.maximum(self.largest.to(p), top.amax((0, 2, 3)))


def attention(live: Live) -> tuple[AttentionFlow, ...]:
    """Returns every call of attention in forward order; before the backward pass."""
    graph, plan = live.graph, live.blueprint.plan
    places = [n for n in plan.dag.order if operations.is_attention(graph.kinds[n])]
    places.sort(key=lambda n: graphs.sequence(graph.nodes[n]))
    seen: Counter[str] = Counter()
    found = []
    with torch.no_grad(), torch._C.DisableTorchFunction():
        for place in places:
            flow = _flow(live, place, seen)
            if flow is not None:
                found.append(flow)
    return tuple(found)


def _flow(live: Live, place: int, seen: Counter[str]) -> AttentionFlow | None:
    node, call = live.graph.nodes[place], live.callers.of(live.graph.nodes[place])
    path = call.path if call else ""
    sums = _Sums()
    if live.graph.kinds[place].startswith("ScaledDotProduct"):
        for scores in fused(node):
            sums.add(scores.probabilities, scores.visible, scores.logits)
            sums.keys = scores.logits.shape[-1]
        sums.queries = _shape(node._saved_query)[-2]  # type: ignore[attr-defined]
    elif not _explicit(live, place, path, sums):
        return None
    seen[path] += 1
    counted = sums.counted.clamp(min=1)
    name = path or "attention"
    return AttentionFlow(
        layer=name if seen[path] == 1 else f"{name} call {seen[path]}",
        source=call.source if call else None,
        queries=sums.queries,
        keys=sums.keys,
        entropy=_floats(sums.entropy / counted),
        collapsed=_floats(sums.collapsed / counted),
        largest_logit=tuple(
            value if math.isfinite(value) else math.nan
            for value in _floats(sums.largest.expand(counted.shape))
        ),
    )


def _shape(tensor: Tensor) -> torch.Size:
    return tensor.shape


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(float(value) for value in values.tolist())


def _explicit(live: Live, place: int, path: str, sums: _Sums) -> bool:
    """Adds a softmax that follows a product of two data tensors."""
    node: Any = live.graph.nodes[place]
    result: Tensor = node._saved_result.detach()
    product = _product_below(node)
    along = int(node._saved_dim) in (result.dim() - 1, -1, 2**64 - 1)
    if product is None or not along or result.dim() < 3:
        return False
    below, factor, masked = product
    heads = _heads(live, path, result)
    sums.queries, sums.keys = result.shape[-2], result.shape[-1]
    p = result.reshape(-1, heads, *result.shape[-2:])
    logits = _logits(below, factor, result)
    shown = None if logits is None else logits.reshape(p.shape)
    for sample, chunk in enumerate(torch.split(p, 1)):
        some = chunk > 0 if masked else torch.ones_like(chunk, dtype=torch.bool)
        sums.add(chunk, some, None if shown is None else shown[sample][None])
    return True


def _product_below(node: Any) -> tuple[Any, float, bool] | None:
    """Returns the product of queries and keys, the factor on it, and whether masked.

    NaN for the factor where the scores are changed by more than a number.
    """
    factor, masked = 1.0, False
    for _ in range(_STEPS):
        following = [child for child, _ in node.next_functions if child is not None]
        if not following:
            return None
        node = following[0]
        kind = operations.kind(node.name())
        if kind in _PRODUCTS:
            return node, factor, masked
        if kind in ("Mul", "Div"):
            factor *= _number(node, kind)
        elif kind in ("Add", "MaskedFill", "Where", "Sub"):
            masked = True
        elif not operations.is_reshape(kind):
            return None
    return None


def _number(node: Any, kind: str) -> float:
    other = node._saved_other
    if not isinstance(other, Tensor) or other.numel() != 1:
        return math.nan
    return float(other) if kind == "Mul" else 1 / float(other)


def _logits(node: Any, factor: float, result: Tensor) -> Tensor | None:
    if math.isnan(factor):
        return None
    names = _PRODUCTS[operations.kind(node.name())]
    try:
        left, right = (getattr(node, f"_saved_{name}").detach() for name in names)
    except RuntimeError:
        return None
    logits: Tensor = (left @ right) * factor
    return logits if logits.numel() == result.numel() else None


def _heads(live: Live, path: str, result: Tensor) -> int:
    """Returns how many heads a softmax has: its second dimension, or as declared."""
    if result.dim() >= 4:
        return result.shape[-3]
    module: nn.Module | None
    try:
        module = live.setting.model.get_submodule(path)
    except AttributeError:
        module = None
    for name in ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads"):
        declared = getattr(module, name, None)
        if isinstance(declared, int) and result.shape[0] % declared == 0:
            return declared
    return 1
