"""Figures over batches: an interval, and the moments of a tensor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure over batches and seeds: mean and its 95 % interval.

    With one batch ``lo == hi == value`` and ``n == 1``: no spread is known.
    """

    value: float
    lo: float
    hi: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Mean, standard deviation and range of a tensor over all batches."""

    mean: float
    std: float
    min: float
    max: float
