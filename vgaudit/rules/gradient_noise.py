"""VG604: a gradient that is noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding
from vgaudit.flow import Audit, NoiseFlow
from vgaudit.rules.examples import chain
from vgaudit.rules.examples_deep import noise
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.wording import count, number


@dataclass(frozen=True, slots=True)
class GradientNoise(Rule):
    """One batch's gradient says almost nothing about the next one's.

    What it measures:
        Over n batches of one size B, the signal |G|² (squared norm of the mean
        gradient, less tr Σ/n that noise adds to it) over the noise tr Σ of one
        batch, all parameters together; and the noise scale B·tr Σ/|G|², the batch
        at which both are equal. It needs `scan --deep`, real data with labels, and
        as many batches as the limit says.

    Why it matters:
        A gradient that is small and the same in every batch is small but
        informative: a larger step helps. One that is small and different in every
        batch is noise: a larger step only makes a longer random walk, a larger batch
        helps. The two look alike in every norm.

    False alarms:
        At the end of training the signal goes and the noise stays; that is what
        convergence looks like. Therefore this is information.

    Treatments:
        A larger batch, gradient accumulation, a smaller learning rate at the end;
        better labels.

    References:
        McCandlish et al. 2018, “An empirical model of large-batch training”.
    """

    snr: float = threshold(0.01, "signal over noise of one batch; below it")
    batches: int = threshold(6, "batches from which the split means something")

    code: ClassVar[str] = "VG604"
    name: ClassVar[str] = "gradient-noise"
    transport: ClassVar[bool] = True
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("a thousandth of a batch's gradient is signal", noise(1e-3), "info"),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("as much signal as noise", noise(1.0)),
        Example("an ordinary scan", chain()),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for the model."""
        deep = audit.flow.deep
        if deep is None or audit.data.kind != "real" or not deep.noise:
            return
        whole = deep.noise[0]
        if whole.batches < self.batches or not whole.snr < self.snr:
            return
        silent = [line for line in deep.noise[1:] if line.snr < self.snr]
        yield Finding(
            code=self.code,
            name=self.name,
            level="info",
            message=(
                f"the gradient of a batch of {whole.batch_size:,} is mostly noise: "
                f"signal over noise is {number(whole.snr)} over "
                f"{count(whole.batches, 'batch')} (limit {number(self.snr)})"
            ),
            value=whole.snr,
            limit=self.snr,
            unit="signal / noise",
            evidence=(
                f"signal and noise are equal at a batch of {number(whole.noise_scale)}",
                f"{count(len(silent), 'parameter')} of {len(deep.noise) - 1:,} "
                "are below the limit",
            ),
            fix=self.advice("a larger batch", _needed(whole)),
        )


def _needed(whole: NoiseFlow) -> str:
    """Returns the batch at which signal and noise are equal, as the reason."""
    if not math.isfinite(whole.noise_scale):
        return f"{count(whole.batches, 'batch')} show no signal at all"
    times = number(whole.noise_scale / whole.batch_size)
    return f"signal and noise are equal at {times} times this batch"
