"""The gradient against the lag, over groups of samples: from norms to figures.

It is taken of the first samples of a scan, in whatever batches they come, and each of
them is projected by a random vector of its own: so a scan in batches of eight says the
same as one in batches of 32.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vgaudit.flow import GateFlow, Interval, RecurrenceFlow
from vgaudit.probe.interval import GROUP_SCATTER, interval

SAMPLES = 32
"""Samples of a scan that are used at most."""

GROUPS = 4
LEFT = -2.0
"""Decades below which less than 1 % of the gradient is left."""

MOST_LAGS = 64


@dataclass(slots=True)
class Lags:
    """What one recurrent layer showed on some samples.

    Attributes:
        kind, steps, last_only, gates: as in ``RecurrenceFlow``.
        logs: log₁₀ ‖∂s/∂h_{T-lag}‖ by lag, from 0, and by sample.
    """

    kind: str
    steps: int
    logs: list[list[float]]
    last_only: bool | None = None
    gates: tuple[GateFlow, ...] = field(default=())


def direction(like: Tensor, seed: int, start: int = 0) -> Tensor:
    """Returns v ~ N(0, I), the same on every device and in every type.

    Args:
        like: states, [samples, …], or those of one sample.
        seed: of the draws.
        start: number of the first sample in the scan. Each sample has a draw of its
            own; beyond those that are used it is zero.
    """
    shape = like.shape if like.dim() > 1 else (1, *like.shape)
    vector = torch.zeros(shape, dtype=torch.float64, device="cpu")
    generator = torch.Generator()
    for place in range(min(shape[0], max(SAMPLES - start, 0))):
        generator.manual_seed((seed * 1_000_003 + start + place) % 2**63)
        vector[place] = torch.randn(
            shape[1:], generator=generator, dtype=torch.float64, device="cpu"
        )
    return vector.reshape(like.shape).to(device=like.device, dtype=like.dtype)


def sample_logs(gradient: Tensor, start: int = 0) -> list[float]:
    """Returns log₁₀ of the L2 norm of each sample that is used (first dimension)."""
    rows = gradient if gradient.dim() > 1 else gradient.reshape(1, -1)
    rows = rows.detach()[: max(SAMPLES - start, 0)].double().flatten(1)
    return [log(norm) for norm in torch.linalg.vector_norm(rows, dim=1).tolist()]


def log(norm: float) -> float:
    """Returns log₁₀ of a norm; −∞ for zero, NaN for NaN."""
    return math.log10(norm) if norm != 0 else -math.inf


def pooled(parts: Sequence[Lags]) -> Lags:
    """Returns the figures of as many samples as are used, from those of batches.

    Batches whose sequences are of another length than the first are left out.
    """
    first, *others = parts
    logs = [list(row) for row in first.logs]
    for other in others:
        if (other.kind, len(other.logs)) == (first.kind, len(logs)):
            for row, more in zip(logs, other.logs, strict=True):
                row.extend(more[: SAMPLES - len(row)])
    return dataclasses.replace(first, logs=logs)


def by_group(lags: Lags) -> list[list[float]]:
    """Returns decades by lag, over up to four groups of samples."""
    size = math.ceil(len(lags.logs[0]) / GROUPS)
    norms = [[_joined(group) for group in _split(row, size)] for row in lags.logs]
    return [[a - b for a, b in zip(row, norms[0], strict=True)] for row in norms]


def _split(row: Sequence[float], size: int) -> Iterator[Sequence[float]]:
    for first in range(0, len(row), size):
        yield row[first : first + size]


def _joined(logs: Sequence[float]) -> float:
    """Returns log₁₀ of the root of the sum of squares, without ever leaving logs."""
    if any(math.isnan(value) for value in logs):
        return math.nan
    top = max(logs)
    if not math.isfinite(top):
        return top
    return top + math.log10(math.fsum(10.0 ** (2 * (x - top)) for x in logs)) / 2


def flow(layer: str, lags: Lags) -> RecurrenceFlow:
    """Returns the figures of one recurrent layer."""
    decades = by_group(lags)
    means = [interval(row, GROUP_SCATTER) for row in decades]
    shown = _shown(len(means))
    return RecurrenceFlow(
        layer=layer,
        kind=lags.kind,
        steps=lags.steps,
        lags=shown,
        decades=tuple(means[lag] for lag in shown),
        rate=_rate(decades),
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
