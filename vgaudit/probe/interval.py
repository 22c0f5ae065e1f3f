"""From figures per batch to a mean with its interval.

A few batches say little about how far batches scatter: with two of them Student's
interval is 12.7 standard errors wide, and its width is mostly chance. What other
models scatter by helps. Their variances follow s² ~ s₀²·F(d, d₀) well, so the
variance of a figure with d degrees of freedom is moderated,

    s̃² = (d₀·s₀² + d·s²) / (d₀ + d),

and the mean stands in t with d₀ + d degrees of freedom. Without a prior (d₀ = 0), and
for many batches, this is Student's interval. A figure of a batch is one of its samples'
mean, so s₀ shrinks with the root of their number.

Smyth 2004, “Linear models and empirical Bayes methods for assessing differential
expression in microarray experiments”, section 4.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from vgaudit.flow import Interval

# Two-sided 95 % points of Student's t for 1 … 30 degrees of freedom.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip

_ROUNDING = 1e-6
"""Decades: what scatters by less does so by rounding alone, as across a reshape."""


@dataclass(frozen=True, slots=True)
class Prior:
    """How figures of one kind scatter, from models measured before.

    Attributes:
        freedom: d₀, the degrees of freedom that it is worth.
        deviation: s₀, the deviation that it expects, in decades.
        samples: behind one figure, where that is s₀.
    """

    freedom: int
    deviation: float
    samples: int = 1

    def of(self, samples: float) -> Prior:
        """Returns the prior of figures that ``samples`` samples stand behind."""
        shrunk = self.deviation * math.sqrt(self.samples / max(samples, 1))
        return dataclasses.replace(self, deviation=shrunk)


# Fitted by benchmarks/detection/prior.py: its fits are 1.6 degrees of freedom at
# 0.0155 decades and 2.3 at 0.057; see docs/accuracy.md.
BATCH_SCATTER = Prior(2, 0.0167, samples=32)
"""Of the gradient's transport between batches."""

GROUP_SCATTER = Prior(2, 0.0546)
"""Of the gradient against the lag between groups of samples of one batch."""


def decades(norm: float, reference: float) -> float:
    """Returns log10(norm / reference); −inf for a zero norm, NaN where undefined."""
    if math.isnan(norm) or not math.isfinite(reference) or reference == 0:
        return math.nan
    if norm == 0:
        return -math.inf
    return math.log10(norm) - math.log10(reference)


def interval(values: Sequence[float], prior: Prior | None = None) -> Interval:
    """Returns mean and 95 % interval of the mean, by a moderated t.

    Infinite or undefined values are kept as they are: one batch without any
    gradient leaves the lower end at −inf, all of them make the mean −inf.

    Args:
        values: one for each batch.
        prior: what such figures scatter by; None for Student's t.

    Raises:
        ValueError: without values.
    """
    if not values:
        raise ValueError("an interval needs at least one value")
    n = len(values)
    if any(math.isnan(value) for value in values):
        return Interval(value=math.nan, lo=math.nan, hi=math.nan, n=n)
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < n:
        return _with_infinite(values, finite)
    mean = math.fsum(finite) / n
    if n == 1:
        return Interval(value=mean, lo=mean, hi=mean, n=1)
    # Not statistics.stdev: its exact fractions cost more than the measurement.
    squares = math.fsum((value - mean) ** 2 for value in finite)
    half = _half(squares, n, prior)
    return Interval(value=mean, lo=mean - half, hi=mean + half, n=n)


def _half(squares: float, n: int, prior: Prior | None) -> float:
    """Returns half the width, from the sum of squared deviations."""
    freedom = n - 1
    if prior is not None and squares > freedom * _ROUNDING**2:
        squares += prior.freedom * prior.deviation**2
        freedom += prior.freedom
    t = _T95[min(freedom, len(_T95)) - 1]
    return t * math.sqrt(squares / freedom / n)


def _with_infinite(values: Sequence[float], finite: Sequence[float]) -> Interval:
    # The median says what most batches did; the ends say what any batch did.
    middle = statistics.median_low(values)
    return Interval(value=middle, lo=min(values), hi=max(values), n=len(values))
