"""The exact trust-region damping: the smallest μ that keeps the step in its radius.

A step is ``s(μ) = m / (h + μ)``, elementwise, with curvature ``h ≥ 0``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

# Keeps 0 / 0 at 0 where neither a gradient nor curvature was ever seen.
SMALLEST = 1e-37

_TOLERANCE = 1e-9
_ROUNDS = 100


def trust_damping(
    momenta: Sequence[Tensor], curvatures: Sequence[Tensor], radius: float
) -> float:
    """Returns the smallest μ ≥ 0 with ‖m / (h + μ)‖ ≤ ``radius``.

    Newton's method on ``1/‖s(μ)‖ = 1/R``, which is concave in μ: from the left of
    the root it climbs to it without passing it (Moré and Sorensen, 1983). The root
    lies in [‖m‖/R − max h, ‖m‖/R].

    Args:
        momenta: m, one tensor for each member of the block.
        curvatures: h ≥ 0, of the same shapes.
        radius: R > 0.
    """
    pairs = [
        (m.double(), h.double())
        for m, h in zip(momenta, curvatures, strict=True)
        if m.numel()
    ]
    upper = math.sqrt(sum(float(m.square().sum()) for m, _ in pairs)) / radius
    mu = max(0.0, upper - max((float(h.max()) for _, h in pairs), default=0.0))
    for _ in range(_ROUNDS):
        square, slope = _sums(pairs, mu)
        length = math.sqrt(square)
        if length <= radius * (1.0 + _TOLERANCE):
            break
        mu = min(mu + square / slope * (length - radius) / radius, upper)
    return mu


def _sums(pairs: Sequence[tuple[Tensor, Tensor]], mu: float) -> tuple[float, float]:
    """Returns Σ m²/(h+μ)² and Σ m²/(h+μ)³."""
    square = slope = 0.0
    for m, h in pairs:
        below = (h + mu).clamp_min_(SMALLEST)
        terms = (m / below).square_()
        square += float(terms.sum())
        slope += float((terms / below).sum())
    return square, slope
