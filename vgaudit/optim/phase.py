"""Where each layer stands between its two phases: boundary and curvature."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from vgaudit.optim.averages import curvature, directions
from vgaudit.optim.layers import Layer, Layout
from vgaudit.optim.norms import norms


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPhase:
    """Where a layer stood in its last step.

    Attributes:
        layer: its name.
        radius: R, the longest step allowed.
        step_ratio: ‖step‖ / R in centred coordinates: near 1 the step runs along
            the boundary (phase I); well below, curvature holds it back, or batches
            that disagree (phase II).
        curvature_ratio: median of κh / μ over the layer's elements, None without
            curvature; well below 1 the curvature does nothing.
        radius_factor: what the adaptation multiplies the radius by.
        refused: steps left out because a gradient or weight was not finite.
    """

    layer: str
    radius: float
    step_ratio: float
    curvature_ratio: float | None
    radius_factor: float
    refused: int


def phase_of(layout: Layout, layer: Layer) -> LayerPhase:
    """Returns the phase of a layer that has moved at least once."""
    damping = {
        index: float(layout.kept(block[0])["mu"])
        for block in layer.blocks
        for index in block
        if "mu" in layout.kept(block[0]) and "momentum" in layout.kept(index)
    }
    radii = [layout.kept(block[0]).get("radius", 0.0) for block in layer.blocks]
    radius = math.hypot(*radii)
    moves = directions(layout, damping, {})
    steps = [direction for direction, _ in moves.values()]
    lengths = norms(steps, layout.spread(moves))
    factors = [factor for _, factor in moves.values()]
    step = math.hypot(*(n * f for n, f in zip(lengths, factors, strict=True)))
    lead = layout.kept(layer.members[0])
    return LayerPhase(
        layer=layer.name,
        radius=radius,
        step_ratio=step / radius if radius > 0.0 else 0.0,
        curvature_ratio=_curvature_ratio(layout, damping),
        radius_factor=lead.get("radius_factor", 1.0),
        refused=lead.get("refused", 0),
    )


def _curvature_ratio(layout: Layout, damping: dict[int, float]) -> float | None:
    """Returns the median of κh / μ over all elements, None without curvature."""
    parts = []
    for index, mu in damping.items():
        found = curvature(layout, index)
        if found is not None:
            parts.append((found[0].double() * found[1] / mu).flatten())
    return float(torch.cat(parts).median()) if parts else None
