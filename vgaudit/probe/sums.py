"""Statistics of activations as sums that merge: batches and ranks alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from vgaudit.flow import ActivationFlow, Histogram, Moments
from vgaudit.probe.activations import Activation
from vgaudit.probe.histograms import joined


@dataclass(slots=True)
class MomentSums:
    """Count, mean, sum of squared deviations and range of all values seen.

    Batches are joined by the parallel rule (Chan, Golub, LeVeque 1979), never
    by E[x²] − m², which in float32 can be negative.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    def merge(self, other: MomentSums) -> None:
        """Adds what ``other`` saw."""
        if not other.count:
            return
        both = self.count + other.count
        delta = other.mean - self.mean
        self.squares += other.squares + delta * delta * self.count * other.count / both
        self.mean += delta * other.count / both
        self.count = both
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)

    def moments(self) -> Moments:
        """Returns the figures; NaN where nothing was seen."""
        if not self.count:
            return Moments(mean=math.nan, std=math.nan, min=math.nan, max=math.nan)
        return Moments(
            mean=self.mean,
            std=math.sqrt(max(self.squares, 0.0) / self.count),
            min=self.low,
            max=self.high,
        )


@dataclass(slots=True)
class ActivationSums:
    """What one activation call did, over the batches seen so far."""

    activation: Activation
    input: MomentSums = field(default_factory=MomentSums)
    output: MomentSums = field(default_factory=MomentSums)
    slope_squares: float = 0.0
    low: float = 0.0
    high: float = 0.0
    slope_max: float = 0.0
    samples: int = 0
    alive: Tensor | None = None
    units_known: bool = True
    gate: bool = False
    histogram: Histogram | None = None

    def merge(self, other: ActivationSums) -> None:
        """Adds what ``other`` saw of the same call."""
        self.input.merge(other.input)
        self.output.merge(other.output)
        self.slope_squares += other.slope_squares
        self.low += other.low
        self.high += other.high
        self.slope_max = max(self.slope_max, other.slope_max)
        self.samples += other.samples
        self.gate = self.gate or other.gate
        self.histogram = joined(self.histogram, other.histogram)
        self._merge_units(other)

    def _merge_units(self, other: ActivationSums) -> None:
        if self.alive is None:
            self.alive, self.units_known = other.alive, other.units_known
        elif other.alive is None or other.alive.shape != self.alive.shape:
            self.units_known = False
        else:
            self.alive = self.alive | other.alive

    def _slope_max(self) -> float:
        known = self.activation.slope_max
        return self.slope_max if math.isinf(known) else max(known, self.slope_max)

    def flow(self) -> ActivationFlow:
        """Returns the figures as plain numbers."""
        count = max(self.input.count, 1)
        known = self.alive is not None and self.units_known
        units = self.alive.numel() if known and self.alive is not None else 0
        alive = int(self.alive.sum()) if known and self.alive is not None else 0
        return ActivationFlow(
            kind=self.activation.name,
            elements=self.input.count,
            samples=self.samples,
            input=self.input.moments(),
            output=self.output.moments(),
            slope_mean_square=self.slope_squares / count,
            slope_max=self._slope_max(),
            saturated_low=self.low / count,
            saturated_high=self.high / count,
            units=units,
            dead_units=units - alive,
            dead_bound=min(1.0, 3.0 / max(self.samples, 1)),
            bounded=self.activation.bounded,
            gate=self.gate,
            histogram=self.histogram,
        )
