"""The verdict's arithmetic, against published tables and by hand."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from vgaudit.estimates import Estimate, clears, difference, estimate, quantile

TABLE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 9: 2.2622, 14: 2.1448, 30: 2.0423}
"""Two-sided 95 % quantiles, as any table of Student's t prints them."""


@pytest.mark.parametrize(("freedom", "printed"), TABLE.items())
def test_quantiles_are_those_of_the_printed_table(freedom: int, printed: float) -> None:
    assert quantile(freedom) == pytest.approx(printed, abs=5.1e-5)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_one_degree_of_freedom_is_the_cauchy_distribution(level: float) -> None:
    assert quantile(1, level) == pytest.approx(math.tan(math.pi * level / 2))


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_two_degrees_of_freedom_have_a_closed_form(level: float) -> None:
    # P(|T| ≤ t) = t / √(2 + t²), solved for t.
    assert quantile(2, level) == pytest.approx(level * math.sqrt(2 / (1 - level**2)))


def test_many_degrees_of_freedom_are_the_normal_distribution() -> None:
    assert quantile(100_000) == pytest.approx(1.959964, abs=1e-4)


def test_an_interval_by_hand() -> None:
    # Mean 0.8; squared deviations 0.01, 0, 0.01; s = 0.1; half = 4.3027 · 0.1 / √3.
    found = estimate([0.7, 0.8, 0.9])

    assert found.mean == pytest.approx(0.8)
    assert found.half == pytest.approx(0.248414, abs=1e-5)
    assert (found.low, found.high) == pytest.approx((0.551586, 1.048414), abs=1e-5)


def test_one_value_tells_nothing_of_the_spread() -> None:
    assert estimate([0.5]).half == math.inf


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9), st.floats(-1e3, 1e3))
def test_an_interval_moves_with_its_values(values: list[float], by: float) -> None:
    there, moved = estimate(values), estimate([value + by for value in values])

    assert moved.mean == pytest.approx(there.mean + by, abs=1e-6)
    assert moved.half == pytest.approx(there.half, rel=1e-6, abs=1e-6)


@given(
    st.lists(st.floats(0, 1), min_size=3, max_size=6),
    st.lists(st.floats(0, 1), min_size=3, max_size=6),
)
def test_the_interval_of_a_difference_is_welchs(one: list[float], other: list[float]):
    found = difference(estimate(one), estimate(other))
    errors = [stats.sem(values) ** 2 for values in (one, other)]
    assume(min(errors) > 1e-12)
    freedom = sum(errors) ** 2 / sum(
        error**2 / (len(values) - 1)
        for error, values in zip(errors, (one, other), strict=True)
    )
    known = stats.ttest_ind(one, other, equal_var=False).confidence_interval()

    assert found.mean == pytest.approx(statistics.fmean(one) - statistics.fmean(other))
    # scipy's is a little narrower: its degrees of freedom are not rounded down.
    assert found.half >= (known.high - known.low) / 2 * (1 - 1e-6)
    assume(freedom % 1 > 1e-6)
    wanted = stats.t.ppf(0.975, math.floor(freedom)) * math.sqrt(sum(errors))
    assert found.half == pytest.approx(wanted, rel=1e-6)


def test_a_difference_that_touches_zero_does_not_clear() -> None:
    # Both errors are 0.05 / 4.3027, so 4 degrees of freedom: 2.7764 · √2 · 0.01162.
    other = Estimate(0.8, 0.05, 3)
    limit = 2.776445 * math.sqrt(2) * 0.05 / 4.302653

    for gain, wanted in ((limit * 0.999, False), (limit * 1.001, True)):
        winner = Estimate(0.8 + gain, 0.05, 3)
        assert clears(winner, other, metric="accuracy", judged=10**6) is wanted


def test_against_a_fixed_value_the_interval_is_that_of_the_arm() -> None:
    arm = estimate([0.7, 0.8, 0.9])

    found = difference(arm, Estimate(0.5, 0.0, 1))
    assert (found.mean, found.half) == (pytest.approx(0.3), pytest.approx(arm.half))
    assert difference(Estimate(0.7, math.inf, 1), arm).half == math.inf


def test_few_judging_samples_hide_a_difference_that_every_seed_shows() -> None:
    # √(0.9·0.1 + 0.8·0.2) · 1.96 = 0.98: a difference of 0.1 needs 97 samples.
    winner, other = Estimate(0.9, 0.0, 3), Estimate(0.8, 0.0, 3)

    assert not clears(winner, other, metric="accuracy", judged=96)
    assert clears(winner, other, metric="accuracy", judged=97)


def test_a_loss_must_fall_by_more_than_a_hundredth() -> None:
    control = Estimate(-1.0, 0.0, 3)

    assert not clears(Estimate(-0.995, 0.0, 3), control, metric="loss", judged=100)
    assert clears(Estimate(-0.98, 0.0, 3), control, metric="loss", judged=100)
    assert not clears(Estimate(-1.2, 0.0, 3), control, metric="loss", judged=100)
