"""From figures to places: linear and asinh scales, and round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Linear:
    """Maps ``[low, high]`` to ``[start, end]``; what lies outside, to the nearer end.

    Infinities go to the ends; NaN goes to ``start``.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Returns the place of a value."""
        if math.isnan(value) or self.high == self.low:
            return self.start
        share = (min(max(value, self.low), self.high) - self.low) / (
            self.high - self.low
        )
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 6) -> tuple[float, ...]:
        """Returns at most ``most`` round values from ``low`` to ``high``."""
        return round_values(self.low, self.high, most)


@dataclass(frozen=True, slots=True)
class Asinh:
    """Like ``Linear`` near 0 and logarithmic far from it, on both sides."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Returns the place of a value."""
        inner = Linear(
            math.asinh(self.low), math.asinh(self.high), self.start, self.end
        )
        return inner(math.asinh(value))

    def ticks(self, most: int = 7) -> tuple[float, ...]:
        """Returns 0 and powers of ten on both sides, at most ``most`` of them."""
        powers = range(1, 1 + max(_power(self.low), _power(self.high), 1))
        step = max(1, math.ceil(2 * len(powers) / max(most - 1, 1)))
        sizes = [10.0**power for power in powers[step - 1 :: step]]
        every = [*(-size for size in reversed(sizes)), 0.0, *sizes]
        return tuple(value for value in every if self.low <= value <= self.high)


def domain(
    values: Iterable[float | None], *, least: tuple[float, float]
) -> tuple[float, float]:
    """Returns the range that holds ``least`` and every finite value."""
    finite = [x for x in values if x is not None and math.isfinite(x)]
    low, high = min([least[0], *finite]), max([least[1], *finite])
    return (low, high) if high > low else (low, low + 1.0)


def round_values(low: float, high: float, most: int) -> tuple[float, ...]:
    """Returns the multiples of 1, 2 or 5 times a power of ten in ``[low, high]``.

    The finest such step that gives at most ``most`` of them.
    """
    size = high - low
    if not math.isfinite(size) or size <= 0:
        return (low,)
    power = 10.0 ** math.floor(math.log10(size / most))
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            return tuple(_clean(n * step) for n in range(first, last + 1))
    return (low, high)


def _clean(value: float) -> float:
    """Returns the value without the dust of binary fractions, and without −0."""
    return float(f"{value:.12g}") + 0.0


def _power(value: float) -> int:
    return math.floor(math.log10(abs(value))) if abs(value) >= 1 else 0
