"""The gradient against the lag, over groups of samples: from norms to figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vgaudit.flow import GateFlow, Interval, RecurrenceFlow
from vgaudit.probe.interval import GROUP_SCATTER, interval

SAMPLES = 32
"""Samples of the first batch that are used at most."""

GROUPS = 4
LEFT = -2.0
"""Decades below which less than 1 % of the gradient is left."""

MOST_LAGS = 64


@dataclass(slots=True)
class Lags:
    """What one recurrent layer showed on the first batch.

    Attributes:
        kind, steps, last_only, gates: as in ``RecurrenceFlow``.
        decades: by lag, from 0, and by group of samples.
    """

    kind: str
    steps: int
    decades: list[list[float]]
    last_only: bool | None = None
    gates: tuple[GateFlow, ...] = field(default=())


def direction(like: Tensor, seed: int) -> Tensor:
    """Returns v ~ N(0, I), the same on every device and in every type."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    vector = torch.randn(
        like.shape, generator=generator, dtype=torch.float64, device="cpu"
    )
    return vector.to(device=like.device, dtype=like.dtype)


def group_norms(gradient: Tensor) -> list[float]:
    """Returns the L2 norms over up to four groups of samples (first dimension)."""
    if gradient.dim() < 2:
        gradient = gradient.reshape(1, -1)
    flat = gradient.detach().double().flatten(1)
    size = math.ceil(len(flat) / GROUPS)
    parts = [torch.linalg.vector_norm(part) for part in torch.split(flat, size)]
    found: list[float] = torch.stack(parts).tolist()
    return found


def flow(layer: str, lags: Lags) -> RecurrenceFlow:
    """Returns the figures of one recurrent layer."""
    means = [interval(row, GROUP_SCATTER) for row in lags.decades]
    shown = _shown(len(means))
    return RecurrenceFlow(
        layer=layer,
        kind=lags.kind,
        steps=lags.steps,
        lags=shown,
        decades=tuple(means[lag] for lag in shown),
        rate=_rate(lags.decades),
        horizon=_horizon(means),
        last_only=lags.last_only,
        gates=lags.gates,
    )


def _shown(count: int) -> tuple[int, ...]:
    """Returns all lags, or 64 of them at even distances with both ends."""
    last = count - 1
    if count <= MOST_LAGS:
        return tuple(range(count))
    steps = MOST_LAGS - 1
    return tuple(round(place * last / steps) for place in range(MOST_LAGS))


def _rate(decades: Sequence[Sequence[float]]) -> Interval:
    """Returns decades per step: the slope of a straight line through all lags."""
    groups = zip(*decades, strict=True)
    return interval([_slope(list(values)) for values in groups])


def _slope(values: Sequence[float]) -> float:
    points = [(lag, value) for lag, value in enumerate(values) if math.isfinite(value)]
    if len(points) < 2:
        return -math.inf if len(values) > 1 else 0.0
    middle = math.fsum(lag for lag, _ in points) / len(points)
    mean = math.fsum(value for _, value in points) / len(points)
    spread = math.fsum((lag - middle) ** 2 for lag, _ in points)
    return math.fsum((lag - middle) * (value - mean) for lag, value in points) / spread


def _horizon(means: Sequence[Interval]) -> int | None:
    return next((lag for lag, mean in enumerate(means) if mean.value < LEFT), None)
