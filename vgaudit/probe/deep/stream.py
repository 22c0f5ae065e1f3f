"""The forward signal along the trunk: does the network still tell its inputs apart?

Where the outputs of a layer are equal for all inputs, or all tokens of a sequence
alike, nothing can be learned below it, however well the gradient travels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import Node

from vgaudit.flow import StreamPoint
from vgaudit.probe import norms
from vgaudit.probe.blueprint import Blueprint
from vgaudit.probe.graph import Graph

# A Gram matrix of this many rows at most; of longer sequences the first tokens.
_LONGEST = 512


@dataclass(frozen=True, slots=True)
class Signal:
    """Figures of one tensor, still on its device."""

    path: str
    elements: int
    norm: Tensor | float
    apart: Tensor | float | None
    tokens: Tensor | float | None
    rank: Tensor


def signal_of(values: Tensor, samples: int, path: str) -> Signal | None:
    """Returns the signal in a tensor with one entry for each sample; None without.

    Args:
        values: of any shape with the samples first, or second in a sequence.
        samples: in the batch.
        path: the module that made it.
    """
    if not values.is_floating_point() or values.dim() < 2 or not values.numel():
        return None
    with torch.no_grad(), torch._C.DisableTorchFunction():
        values = values if values.dtype == torch.float64 else values.float()
        if values.shape[0] != samples:
            if values.dim() != 3 or values.shape[1] != samples:
                return None
            values = values.transpose(0, 1)
        sequence = values.dim() == 3 and values.shape[1] > 1
        return Signal(
            path=path,
            elements=values.numel(),
            norm=norms.norm(values),
            apart=norms.norm(values - values.mean(0)) if samples > 1 else None,
            tokens=norms.norm(values - values.mean(1, keepdim=True))
            if sequence
            else None,
            rank=_participation(values if sequence else values.flatten(1)[None]),
        )


def _participation(rows: Tensor) -> Tensor:
    """Returns (Σσ²)² / Σσ⁴ of each matrix [n, d], meaned over the first dimension."""
    rows = rows[:, :_LONGEST].double()
    largest = rows.abs().amax((1, 2), keepdim=True)
    rows = rows / torch.where(largest > 0, largest, torch.ones_like(largest))
    gram = rows @ rows.transpose(1, 2)
    total = gram.diagonal(dim1=1, dim2=2).sum(1)
    fourth = gram.square().sum((1, 2))
    return torch.where(fourth > 0, total * total / fourth, fourth).mean()


def stream(
    signals: Mapping[Node, Signal], graph: Graph, blueprint: Blueprint
) -> tuple[StreamPoint, ...]:
    """Returns the signal at the modules whose outputs are cut nodes, input first."""
    cuts = [graph.nodes[place] for place in reversed(blueprint.plan.cuts)]
    found = [signals[node] for node in cuts if node in signals]
    return tuple(_point(signal) for signal in found)


def _point(signal: Signal) -> StreamPoint:
    size, apart, tokens, rank = norms.read(
        [
            signal.norm,
            math.nan if signal.apart is None else signal.apart,
            math.nan if signal.tokens is None else signal.tokens,
            signal.rank,
        ]
    )

    def relative(part: float) -> float | None:
        if math.isnan(part):
            return None
        return part / size if size else 0.0

    return StreamPoint(
        layer=signal.path,
        size=size / math.sqrt(signal.elements),
        variation=relative(apart),
        tokens=relative(tokens),
        rank=rank,
    )
