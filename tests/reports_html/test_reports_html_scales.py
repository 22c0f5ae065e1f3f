"""Scales and coordinates against closed forms."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgaudit.reports.charts import svg
from vgaudit.reports.charts.figure import figure, tick
from vgaudit.reports.charts.scale import Asinh, Linear, domain, round_values

REAL = st.floats(-1e12, 1e12)


@pytest.mark.parametrize(
    ("value", "place"),
    [(-4, 294), (0, 6), (-2, 150), (-9, 294), (3, 6), (-math.inf, 294), (math.inf, 6)],
)
def test_a_linear_scale_is_the_line_through_its_ends(value, place) -> None:
    y = Linear(-4.0, 0.0, 294.0, 6.0)

    assert pytest.approx(place) == y(value)


def test_what_is_no_number_stands_at_the_start() -> None:
    assert 5.0 == Linear(0.0, 1.0, 5.0, 9.0)(math.nan)
    assert 5.0 == Linear(1.0, 1.0, 5.0, 9.0)(1.0)


@given(value=st.floats(-1e6, 1e6))
def test_the_asinh_scale_is_odd_and_ends_where_it_should(value) -> None:
    x = Asinh(-1e6, 1e6, 0.0, 100.0)

    assert pytest.approx(100.0 - x(-value)) == x(value)
    assert pytest.approx(50 + 50 * math.asinh(value) / math.asinh(1e6)) == x(value)


@given(low=REAL, size=st.floats(1e-6, 1e12), most=st.integers(2, 12))
def test_ticks_are_round_few_and_inside(low, size, most) -> None:
    high = low + size
    if not high > low:
        return
    found = round_values(low, high, most)

    assert len(found) <= max(most, 2)
    slack = 1e-6 * (high - low) + 1e-9 * max(abs(low), abs(high))
    assert all(low - slack <= value <= high + slack for value in found)
    assert sorted(found) == list(found)


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [
        (-8.57, 0.4, 6, (-8.0, -6.0, -4.0, -2.0, 0.0)),
        (0.0, 1.0, 6, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        (-300.0, 0.0, 6, (-300.0, -200.0, -100.0, 0.0)),
        (2.0, 2.0, 6, (2.0,)),
    ],
)
def test_ticks_step_by_one_two_or_five(low, high, most, ticks) -> None:
    assert ticks == round_values(low, high, most)


def test_ticks_of_the_asinh_scale_are_powers_of_ten_and_zero() -> None:
    assert (-100.0, -10.0, 0.0, 10.0, 100.0) == Asinh(-300, 300, 0, 100).ticks(5)
    assert (0.0, 1e3, 1e6) == Asinh(0, 2e6, 0, 100).ticks(5)


def test_the_domain_leaves_out_what_is_no_finite_number() -> None:
    found = domain([math.nan, -math.inf, None, -9.0, 2.0], least=(-4.0, 0.4))

    assert (-9.0, 2.0) == found
    assert (-4.0, 0.4) == domain([], least=(-4.0, 0.4))
    assert (1.0, 2.0) == domain([1.0], least=(math.inf, -math.inf))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-8.567, "−8.57"),
        (-0.001, "0.00"),
        (None, "–"),
        (math.nan, "not a number"),
        (-math.inf, "−∞"),
        (math.inf, "∞"),
        (12345.678, "12,345.68"),
    ],
)
def test_figures_read_as_figures(value, text) -> None:
    assert text == figure(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(-4.0, "−4"), (0.5, "0.5"), (2000.0, "2000"), (1e6, "1e6"), (-1e-7, "−1e−7")],
)
def test_ticks_read_as_figures(value, text) -> None:
    assert text == tick(value)


@given(value=st.floats(-1e9, 1e9))
def test_coordinates_are_short_and_near(value) -> None:
    assert abs(float(svg.short(value)) - value) <= 0.005 + 1e-9 * abs(value)


def test_whatever_is_written_is_escaped() -> None:
    text = svg.label('<script>"&', 10, 20, kind='"x"')
    expected = '<text x="10%" y="20" class="&quot;x&quot;">&lt;script&gt;"&amp;</text>'

    assert expected == text
