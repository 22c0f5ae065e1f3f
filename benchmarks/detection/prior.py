"""How far figures scatter between batches: the prior of ``probe/interval.py``.

    python benchmarks/detection/prior.py

Scans the models that limits are fitted on, and fits s² ~ s₀²·F(d, d₀) to the
variances of a figure by the first two moments of log s² (Smyth 2004, section 6.2):

    e = log s² − ψ(d/2) + log(d/2),   ψ′(d₀/2) = var(e) − ψ′(d/2),
    log s₀² = mean(e) + ψ(d₀/2) − log(d₀/2).

A last table says how s₀ depends on the samples of a batch.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from scipy import optimize, special, stats

from benchmarks.detection.build import Spec
from benchmarks.detection.grid import half, load
from benchmarks.detection.measure import Arm, audit
from vgaudit.flow import GradientFlow, Interval
from vgaudit.probe.interval import BATCH_SCATTER, GROUP_SCATTER, Prior

NUMBER = 4
"""Batches of a scan, and groups of samples."""

SIZES = (4, 8, 16, 32, 64, 128)
ROUNDING = 1e-6


def variance(found: Interval, prior: Prior) -> float:
    """Returns s² of the values behind a moderated interval.

    The inverse of the interval: its width gives s̃², from which the prior is taken.
    """
    freedom = found.n - 1 + prior.freedom
    width = (found.hi - found.value) / stats.t.ppf(0.975, freedom)
    whole = freedom * found.n * width**2
    left = whole - prior.freedom * prior.deviation**2
    return max(0.0, float(left)) / (found.n - 1)


def fit(variances: Sequence[float], freedom: int) -> tuple[float, float]:
    """Returns d₀ and s₀ of the prior that such variances come from.

    Args:
        variances: one a figure, greater than zero.
        freedom: d, of each of them.
    """
    centre = special.digamma(freedom / 2) - math.log(freedom / 2)
    logs = [math.log(value) - centre for value in variances]
    left = statistics.variance(logs) - float(special.polygamma(1, freedom / 2))
    if left <= 0:
        return math.inf, math.exp(statistics.fmean(logs) / 2)
    worth = optimize.brentq(
        lambda x: float(special.polygamma(1, x / 2)) - left, 1e-2, 1e4
    )
    return float(worth), expected(variances, freedom, float(worth))


def expected(variances: Sequence[float], freedom: int, worth: float) -> float:
    """Returns s₀ of the prior where d₀ is given."""
    centre = special.digamma(freedom / 2) - math.log(freedom / 2)
    mean = statistics.fmean(math.log(value) - centre for value in variances)
    log = mean + float(special.digamma(worth / 2)) - math.log(worth / 2)
    return math.exp(log / 2)


def _transport(flow: GradientFlow) -> Iterator[Interval]:
    if flow.attenuation is not None:
        yield flow.attenuation


def _lags(flow: GradientFlow) -> Iterator[Interval]:
    yield from (item.decades[-1] for item in flow.recurrences)


def _scatter(figures: Iterable[Interval], prior: Prior) -> list[float]:
    known = (f for f in figures if f.n == NUMBER and math.isfinite(f.hi - f.lo))
    return [v for v in (variance(f, prior) for f in known) if v > ROUNDING**2]


def _by_size(specs: Sequence[Spec]) -> None:
    """Says how the transport scatters between batches of another size."""
    for size in SIZES:
        arm = Arm(batch=size, samples=NUMBER * size)
        found = [f for spec in specs for f in _transport(audit(spec, arm).flow)]
        scatter = _scatter(found, BATCH_SCATTER.of(size))
        level = expected(scatter, NUMBER - 1, BATCH_SCATTER.freedom)
        sys.stdout.write(
            f"batches of {size}: s0 = {level:.4f}, expected "
            f"{BATCH_SCATTER.of(size).deviation:.4f}\n"
        )


def main() -> None:
    """Fits both priors."""
    torch.set_num_threads(1)
    specs = [spec for spec in load() if half(spec.name) == "fit"]
    flows = [audit(spec).flow for spec in specs]
    for name, figures, prior in (
        ("transport between batches", _transport, BATCH_SCATTER),
        ("against the lag, between groups", _lags, GROUP_SCATTER),
    ):
        scatter = _scatter([f for flow in flows for f in figures(flow)], prior)
        worth, deviation = fit(scatter, NUMBER - 1)
        rounded = expected(scatter, NUMBER - 1, prior.freedom)
        sys.stdout.write(
            f"{name}: {len(scatter)} figures, d0 = {worth:.2f}, s0 = {deviation:.4f}; "
            f"at d0 = {prior.freedom}, s0 = {rounded:.4f}\n"
        )
    _by_size(specs)


if __name__ == "__main__":
    main()
