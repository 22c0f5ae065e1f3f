"""From figures per batch to a mean with its interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from vgaudit.flow import Interval

# Two-sided 95 % points of Student's t for 1 … 30 degrees of freedom.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def decades(norm: float, reference: float) -> float:
    """Returns log10(norm / reference); −inf for a zero norm, NaN where undefined."""
    if math.isnan(norm) or not math.isfinite(reference) or reference == 0:
        return math.nan
    if norm == 0:
        return -math.inf
    return math.log10(norm) - math.log10(reference)


def interval(values: Sequence[float]) -> Interval:
    """Returns mean and 95 % interval of the mean, by Student's t.

    Infinite or undefined values are kept as they are: one batch without any
    gradient leaves the lower end at −inf, all of them make the mean −inf.

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
    t = _T95[min(n - 1, len(_T95)) - 1]
    # Not statistics.stdev: its exact fractions cost more than the measurement.
    squares = math.fsum((value - mean) ** 2 for value in finite)
    half = t * math.sqrt(squares / (n - 1) / n)
    return Interval(value=mean, lo=mean - half, hi=mean + half, n=n)


def _with_infinite(values: Sequence[float], finite: Sequence[float]) -> Interval:
    # The median says what most batches did; the ends say what any batch did.
    middle = statistics.median_low(values)
    return Interval(value=middle, lo=min(values), hi=max(values), n=len(values))
