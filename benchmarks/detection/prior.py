"""How far figures scatter between batches: the prior of ``probe/interval.py``.

    python benchmarks/detection/prior.py

Scans the models that limits are fitted on, and fits s² ~ s₀²·F(d, d₀) to the
variances of a figure by the first two moments of log s² (Smyth 2004, section 6.2):

    e = log s² − ψ(d/2) + log(d/2),   ψ′(d₀/2) = var(e) − ψ′(d/2),
    log s₀² = mean(e) + ψ(d₀/2) − log(d₀/2).
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from scipy import optimize, special, stats

from benchmarks.detection.grid import half, load
from benchmarks.detection.measure import audit
from vgaudit.flow import GradientFlow, Interval
from vgaudit.probe.interval import BATCH_SCATTER, GROUP_SCATTER, Prior

NUMBER = 4
"""Batches of a scan, and groups of samples."""

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


def main() -> None:
    """Fits both priors."""
    torch.set_num_threads(1)
    flows = [audit(spec).flow for spec in load() if half(spec.name) == "fit"]
    for name, figures, prior in (
        ("transport between batches", _transport, BATCH_SCATTER),
        ("against the lag, between groups", _lags, GROUP_SCATTER),
    ):
        found = [figure for flow in flows for figure in figures(flow)]
        known = [f for f in found if f.n == NUMBER and math.isfinite(f.hi - f.lo)]
        scatter = [variance(f, prior) for f in known]
        scatter = [value for value in scatter if value > ROUNDING**2]
        worth, deviation = fit(scatter, NUMBER - 1)
        rounded = expected(scatter, NUMBER - 1, prior.freedom)
        sys.stdout.write(
            f"{name}: {len(scatter)} figures, d0 = {worth:.2f}, s0 = {deviation:.4f}; "
            f"at d0 = {prior.freedom}, s0 = {rounded:.4f}\n"
        )


if __name__ == "__main__":
    main()
