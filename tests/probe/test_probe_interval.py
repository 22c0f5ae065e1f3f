"""The moderated interval: against scipy, its limits, and its coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn.functional import cross_entropy

from vgaudit.data.batch import Batch, Loss
from vgaudit.flow import Interval
from vgaudit.probe import probe
from vgaudit.probe.interval import BATCH_SCATTER, GROUP_SCATTER, Prior, interval

PRIORS = (BATCH_SCATTER, GROUP_SCATTER)
VALUES = st.lists(st.floats(-50, 50), min_size=2, max_size=12)


def _half(found: Interval) -> float:
    return found.hi - found.value


def _smyth(values: np.ndarray, prior: Prior) -> np.ndarray:
    """Returns half the width for rows of values, by the formulas of the paper."""
    n = values.shape[-1]
    d0, d = prior.freedom, n - 1
    moderated = d0 * prior.deviation**2 + d * values.var(-1, ddof=1)
    moderated = moderated / (d0 + d)
    half: np.ndarray = stats.t.ppf(0.975, d0 + d) * np.sqrt(moderated / n)
    return half


@given(VALUES, st.sampled_from(PRIORS))
def test_a_moderated_interval_is_smyths(values: list[float], prior: Prior) -> None:
    if np.std(values) < 1e-4:
        return
    found = interval(values, prior)

    assert found.value == pytest.approx(np.mean(values), abs=1e-9)
    assert found.value - found.lo == pytest.approx(_half(found), abs=1e-9)
    assert _half(found) == pytest.approx(_smyth(np.array(values), prior), rel=1e-3)


@given(VALUES)
def test_a_prior_that_is_worth_nothing_gives_students_interval(
    values: list[float],
) -> None:
    assert interval(values, Prior(0, 0.5)) == interval(values)


def test_many_batches_outweigh_the_prior() -> None:
    drawn = np.random.default_rng(3).normal(scale=0.1, size=4000).tolist()
    shares = []
    for n in (2, 20, 200, 4000):
        plain, found = interval(drawn[:n]), interval(drawn[:n], BATCH_SCATTER)
        shares.append(_half(found) / _half(plain))

    assert shares[0] < 0.5
    assert shares[-1] == pytest.approx(1.0, abs=1e-3)
    assert (
        abs(math.log(shares[2])) < abs(math.log(shares[1])) < abs(math.log(shares[0]))
    )


def test_what_cannot_scatter_has_no_width() -> None:
    same = interval([-0.25, -0.25], BATCH_SCATTER)
    rounded = interval([-0.25, -0.25 + 1e-8, -0.25 - 1e-8], BATCH_SCATTER)

    assert (same.lo, same.hi) == (-0.25, -0.25)
    assert _half(rounded) < 1e-7
    assert interval([-0.25], BATCH_SCATTER) == interval([-0.25])
    assert interval([-math.inf, -2.0], BATCH_SCATTER).lo == -math.inf


@pytest.mark.parametrize("prior", PRIORS, ids=("batches", "groups"))
@pytest.mark.parametrize("n", [2, 3, 4, 8])
def test_the_interval_covers_what_it_promises(n: int, prior: Prior) -> None:
    """Models whose scatter the prior describes: 95 % of the means are inside."""
    draw = np.random.default_rng(n)
    models = 200_000
    scatter = prior.freedom * prior.deviation**2 / draw.chisquare(prior.freedom, models)
    values = draw.normal(size=(models, n)) * np.sqrt(scatter)[:, None]

    inside = np.abs(values.mean(1)) < _smyth(values, prior)
    # 200,000 models tell 0.95 to ±0.001 (two standard errors).
    assert inside.mean() == pytest.approx(0.95, abs=0.002)
    # And the code's own intervals are these.
    for row in values[:50]:
        assert _half(interval(row.tolist(), prior)) == pytest.approx(
            _smyth(row, prior), rel=1e-3
        )


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_prior_worth_less_than_assumed_costs_little_coverage(n: int) -> None:
    """The fit says 1.6 degrees of freedom and the prior has 2, a whole number."""
    draw = np.random.default_rng(n)
    fitted, deviation, models = 1.64, 0.0155, 200_000
    scatter = fitted * deviation**2 / draw.chisquare(fitted, models)
    values = draw.normal(size=(models, n)) * np.sqrt(scatter)[:, None]

    inside = np.abs(values.mean(1)) < _smyth(values, BATCH_SCATTER)
    assert inside.mean() > 0.94


@pytest.mark.parametrize("size", [4, 8, 32, 128])
def test_batches_of_any_size_are_covered(size: int) -> None:
    """Each sample scatters by a model's own deviation; a batch is its samples' mean."""
    draw = np.random.default_rng(size)
    models, n = 100_000, 2
    one = BATCH_SCATTER.freedom * BATCH_SCATTER.deviation**2 * BATCH_SCATTER.samples
    scatter = one / draw.chisquare(BATCH_SCATTER.freedom, models) / size
    values = draw.normal(size=(models, n)) * np.sqrt(scatter)[:, None]
    prior = BATCH_SCATTER.of(size)

    inside = np.abs(values.mean(1)) < _smyth(values, prior)
    assert inside.mean() == pytest.approx(0.95, abs=0.003)
    for row in values[:20]:
        half = _half(interval(row.tolist(), prior))
        assert half == pytest.approx(_smyth(row, prior), rel=1e-3)


def test_the_prior_is_that_of_the_size_it_was_fitted_at() -> None:
    assert BATCH_SCATTER.of(32) == BATCH_SCATTER
    assert BATCH_SCATTER.of(128).deviation == pytest.approx(BATCH_SCATTER.deviation / 2)
    assert BATCH_SCATTER.of(0) == BATCH_SCATTER.of(1)


@pytest.mark.parametrize("size", [8, 64])
def test_a_scan_expects_the_scatter_of_its_batches(size: int) -> None:
    """Against Smyth's formula on scans of each batch alone, which have no interval."""
    torch.manual_seed(0)
    layers = [[nn.Linear(16, 16), nn.Tanh()] for _ in range(4)]
    model = nn.Sequential(*[m for pair in layers for m in pair], nn.Linear(16, 4))
    inputs, labels = torch.randn(3 * size, 16), torch.arange(3 * size) % 4
    batches = [
        Batch(args=(part,), labels=y, size=size)
        for part, y in zip(inputs.split(size), labels.split(size), strict=True)
    ]
    loss = Loss("cross-entropy", cross_entropy)

    found = probe(model, batches, loss=loss).attenuation
    alone = [probe(model, [batch], loss=loss).attenuation for batch in batches]
    assert found is not None
    values = np.array([one.value for one in alone if one is not None])
    assert len(values) == 3
    assert found.value == pytest.approx(values.mean(), abs=1e-4)
    expected = _smyth(values, Prior(2, 0.0167 * math.sqrt(32 / size)))
    assert _half(found) == pytest.approx(expected, rel=1e-2)


def test_two_batches_are_judged_by_what_models_usually_scatter_by() -> None:
    """The same two batches: 12.7 standard errors without a prior, 3.2 with one."""
    values = [-3.80, -3.75]

    assert interval(values).hi > -3.5
    assert interval(values, BATCH_SCATTER).hi < -3.7
