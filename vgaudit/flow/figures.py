"""Figures over batches: an interval, moments and the histogram of a tensor."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How often the inputs of an activation fall where: every value, counted.

    Bin i is the half-open [start + i·width, start + (i + 1)·width). Widths are powers
    of two and edges their multiples, so that two histograms are joined exactly.

    Attributes:
        start: the lowest edge. width: of a bin.
        counts: values in each bin, from the one of the least value to the one of the
            largest; empty without a finite value.
        saturated: those of them with |φ′(z)| < 0.05·``slope_max``.
        nonfinite: values that are NaN or infinite, in no bin.
    """

    start: float
    width: float
    counts: tuple[int, ...]
    saturated: tuple[int, ...]
    nonfinite: int = 0

    @property
    def values(self) -> int:
        """All values that were looked at."""
        return sum(self.counts) + self.nonfinite
