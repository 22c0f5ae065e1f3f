"""The prior of intervals: what the fit recovers from scatter that is known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.detection.prior import expected, fit, variance
from vgaudit.probe.interval import BATCH_SCATTER, GROUP_SCATTER, Prior, interval


@pytest.mark.parametrize(("worth", "deviation"), [(1.6, 0.015), (4.0, 0.2)])
def test_the_fit_recovers_the_prior(worth: float, deviation: float) -> None:
    draw = np.random.default_rng(1)
    true = worth * deviation**2 / draw.chisquare(worth, 40_000)
    seen = (true * draw.chisquare(3, 40_000) / 3).tolist()

    found, level = fit(seen, 3)
    assert found == pytest.approx(worth, rel=0.05)
    assert level == pytest.approx(deviation, rel=0.03)
    assert expected(seen, 3, worth) == pytest.approx(deviation, rel=0.03)


def test_equal_scatter_makes_a_prior_that_knows_all() -> None:
    draw = np.random.default_rng(2)
    seen = (0.04 * draw.chisquare(3, 2_000) / 3).tolist()
    worth, level = fit(seen, 3)

    assert worth > 20
    assert level == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize("prior", [BATCH_SCATTER, GROUP_SCATTER])
def test_the_scatter_is_read_back_from_an_interval(prior: Prior) -> None:
    values = [-3.1, -3.3, -3.0, -3.2]

    found = variance(interval(values, prior), prior)
    assert found == pytest.approx(np.var(values, ddof=1), rel=2e-3)
