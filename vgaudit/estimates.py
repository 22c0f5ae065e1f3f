"""Means over seeds with their intervals, and whether one is above another."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

LEVEL = 0.95
"""Of every interval, on both sides together."""

TIE = 0.01
"""Share of the control's residual error below which a gain counts as none."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds with its interval; ``half`` is infinite for one value."""

    mean: float
    half: float
    count: int

    @property
    def low(self) -> float:
        """The lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The upper end."""
        return self.mean + self.half


def estimate(scores: Sequence[float]) -> Estimate:
    """Returns the mean of independent scores with Student's interval at ``LEVEL``.

    Raises:
        ValueError: there is none.
    """
    if not scores:
        raise ValueError("no score")
    mean = math.fsum(scores) / len(scores)
    if len(scores) < 2 or not math.isfinite(mean):
        return Estimate(mean, math.inf, len(scores))
    error = statistics.stdev(scores) / math.sqrt(len(scores))
    return Estimate(mean, quantile(len(scores) - 1) * error, len(scores))


@cache
def quantile(freedom: int, level: float = LEVEL) -> float:
    """Returns t with P(|T| ≤ t) = ``level`` for Student's t.

    Source: the finite sums for whole degrees of freedom, Abramowitz & Stegun,
    Handbook of Mathematical Functions, 26.7.3 and 26.7.4; solved by bisection.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if _inside(middle, freedom) < level else (low, middle)
        )
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _inside(angle: float, freedom: int) -> float:
    """Returns P(|T| ≤ √ν·tan(angle))."""
    sine, cosine = math.sin(angle), math.cos(angle)
    even = freedom % 2 == 0
    term, total = (1.0, 1.0) if even else (cosine, cosine)
    for k in range(2 if even else 3, freedom, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    if even:
        return sine * total
    return 2 / math.pi * (angle + (sine * total if freedom > 1 else 0.0))


def difference(one: Estimate, other: Estimate) -> Estimate:
    """Returns how far one mean is above another, with Welch's interval at ``LEVEL``.

    The degrees of freedom are rounded down, which widens it. A fixed value, counted
    once with no spread, is another's threshold.
    Source: Welch, Biometrika 34, 1947; Satterthwaite, Biometrics Bulletin 2, 1946.
    """
    parts = [_square_error(one), _square_error(other)]
    total = math.fsum(square for square, _ in parts)
    gain, count = one.mean - other.mean, min(one.count, other.count)
    if not math.isfinite(total):
        return Estimate(gain, math.inf, count)
    if total == 0.0:
        return Estimate(gain, 0.0, count)
    shares = [(square / total) ** 2 / freedom for square, freedom in parts if freedom]
    freedom = math.floor(1.0 / math.fsum(shares) + 1e-9)
    return Estimate(gain, quantile(max(freedom, 1)) * math.sqrt(total), count)


def _square_error(found: Estimate) -> tuple[float, int]:
    """Returns the squared standard error of a mean, and its degrees of freedom."""
    freedom = found.count - 1
    if freedom == 0:
        return (0.0 if found.half == 0.0 else math.inf), 0
    return (found.half / quantile(freedom)) ** 2, freedom


def clears(winner: Estimate, other: Estimate, *, metric: str, judged: int) -> bool:
    """Tells whether an arm is better than another, or than a value, beyond doubt.

    The interval of their difference over seeds must lie above 0. That says nothing
    about the samples, which are the same for all: so the difference must also exceed
    the 95 % interval that their number leaves to an accuracy (two independent
    binomials, on the safe side), or one per cent of the other's residual error.
    """
    ahead = difference(winner, other)
    gain = ahead.mean
    if not ahead.low > 0.0:
        return False
    if metric == "accuracy":
        return gain > accuracies_apart((winner.mean, judged), (other.mean, judged))
    residual = 1.0 - other.mean if metric == "R²" else -other.mean
    return gain > TIE * abs(residual)


def accuracies_apart(one: tuple[float, int], other: tuple[float, int]) -> float:
    """Returns the 95 % half width of the difference of two accuracies.

    Of two independent binomials: on the safe side where the samples are the same.

    Args:
        one: a share, and the number of samples behind it.
        other: the same of the other.
    """
    parts = ((min(max(share, 0.0), 1.0), samples) for share, samples in (one, other))
    variance = math.fsum(x * (1.0 - x) / max(samples, 1) for x, samples in parts)
    return 1.96 * math.sqrt(variance)
