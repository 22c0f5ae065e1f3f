"""Histograms: the counts are drawn, few of many, and nothing of old reports."""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reports_html.reading import Element, percent, read
from vgaudit.flow import Audit, GradientFlow, Histogram
from vgaudit.judge import judge
from vgaudit.reports import html
from vgaudit.reports.charts import histograms
from vgaudit.reports.json import parse
from vgaudit.reports.json import render as to_json
from vgaudit.rules.examples import activation, chain, having

LIMIT = 300 * 1024


def bins(
    counts: tuple[int, ...],
    saturated: tuple[int, ...] = (),
    *,
    start: float = -2.0,
    width: float = 0.5,
    nonfinite: int = 0,
) -> Histogram:
    return Histogram(
        start=start,
        width=width,
        counts=counts,
        saturated=saturated or (0,) * len(counts),
        nonfinite=nonfinite,
    )


def shown(audit: Audit, found: Histogram) -> Audit:
    """The audit with one histogram at every activation."""
    layers = tuple(
        layer
        if layer.activation is None
        else replace(layer, activation=replace(layer.activation, histogram=found))
        for layer in audit.flow.layers
    )
    return having(audit, layers=layers)


def only(flow: GradientFlow) -> Element:
    figure = histograms.draw(flow)
    assert figure is not None
    return read(figure.picture).one("div", "small")


def one(found: Histogram, **changes: object) -> GradientFlow:
    return activation(chain((-0.1, 0.0)), "layers.1", histogram=found, **changes).flow


def heights(path: str) -> list[float]:
    """Height of each bar as a share of the box, from the path's vertical moves."""
    tops = [float(y) for y in re.findall(r"V([\d.]+)H", path)]
    return [1 - top / histograms.HEIGHT for top in tops]


def test_bars_are_the_counts_and_the_marked_ones_the_saturated() -> None:
    found = bins((10, 40, 20, 0, 5), (10, 8, 0, 0, 5))

    small = only(one(found))

    drawn = {x.attributes["class"]: x.attributes["d"] for x in small.every("path")}
    assert {"body", "low"} == set(drawn)
    assert pytest.approx([10 / 40, 1.0, 0.5, 0.0, 5 / 40], abs=1e-3) == heights(
        drawn["body"] or ""
    )
    assert pytest.approx([10 / 40, 8 / 40, 0.0, 0.0, 5 / 40], abs=1e-3) == heights(
        drawn["low"] or ""
    )
    sides = [float(x) for x in re.findall(r"H([\d.]+)", drawn["body"] or "")]
    assert [200.0, 400.0, 600.0, 800.0, 1000.0] == sides
    assert "31 % saturated" in small.text


def test_ticks_stand_at_their_values() -> None:
    small = only(one(bins((1, 2, 3, 4))))

    ticks = {
        x.text.replace("−", "-"): percent(x.attributes["x"])
        for x in small.every("text")
    }
    assert {"-2": 0.0, "-1": 50.0, "0": 100.0} == ticks


def test_what_has_no_rails_is_off_and_not_saturated() -> None:
    flow = one(bins((3, 1), (3, 0)), kind="relu", bounded=False)
    figure = histograms.draw(flow)
    assert figure is not None

    assert "75 % off" in only(flow).text
    assert ["k-body", "k-off"] == [key.kind for key in figure.keys]
    assert "off" in {x.attributes["class"] for x in only(flow).every("path")}


def test_values_that_are_not_finite_are_told() -> None:
    assert "9 not finite" in only(one(bins((1,), nonfinite=9))).text
    empty = only(one(bins((), nonfinite=9)))
    assert "9 not finite" in empty.text
    assert not list(empty.every("path"))


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=32).filter(any),
    st.sampled_from([0.05, 0.25, 0.5, 0.75, 0.95]),
)
def test_a_quantile_is_right_to_a_bin(counts, share) -> None:
    """Against the sorted list of all values, each at the middle of its bin."""
    found = bins(tuple(counts), start=-3.0, width=0.25)
    values = [-3.0 + 0.25 * (i + 0.5) for i, n in enumerate(counts) for _ in range(n)]
    exact = values[max(math.ceil(share * len(values)) - 1, 0)]

    assert abs(histograms.quantile(found, share) - exact) <= 0.125 + 1e-9


def test_without_a_value_there_is_no_quantile() -> None:
    assert math.isnan(histograms.quantile(bins(()), 0.5))


def test_of_many_the_worst_are_drawn_in_forward_order() -> None:
    decades = [-0.1 * i for i in range(60)][::-1]
    audit = shown(chain(decades), bins((1, 2, 3)))
    flow = activation(audit, "layers.7", saturated_high=0.99).flow

    figure = histograms.draw(flow)

    assert figure is not None
    names = [x.text for x in read(figure.picture).every("div", "name")]
    numbers = [int(name.split()[0].removeprefix("layers.")) for name in names]
    assert histograms.MOST == len(names)
    assert 7 in numbers
    assert sorted(numbers) == numbers
    assert "24 worst of 59" in figure.caption
    assert 59 == len(figure.grid.rows)


def test_the_table_has_the_figures_of_each_histogram() -> None:
    figure = histograms.draw(one(bins((0, 1, 2, 1), (0, 1, 0, 0), nonfinite=2)))
    assert figure is not None

    (row,) = figure.grid.rows
    assert ("layers.1", "sigmoid", "6", "−2.00") == row[:4]
    assert "−0.75" == row[5]
    assert ("0.00", "25 %", "2") == row[7:]


@pytest.mark.parametrize("kind", ["sigmoid", "relu"])
def test_five_hundred_histograms_fit(kind) -> None:
    counts = tuple(itertools.islice(itertools.cycle((123_456, 987_654, 11)), 32))
    audit = chain([-0.25 * i for i in range(500)][::-1], kind=kind, spread=0.1)
    text = html.render(judge(shown(audit, bins(counts, counts))))

    assert len(text.encode()) <= LIMIT
    assert histograms.MOST == len(list(read(text).every("div", "small")))


def test_a_report_from_before_there_were_histograms_is_read_and_drawn() -> None:
    document = json.loads(to_json(judge(shown(chain((-0.1, 0.0)), bins((1, 2))))))
    for layer in document["audit"]["flow"]["layers"]:
        if layer["activation"] is not None:
            del layer["activation"]["histogram"]

    page = read(html.render(parse(json.dumps(document))))

    assert not list(page.every("div", "small"))
    assert "Inputs and saturation" in {x.text for x in page.every("h3")}


def test_json_keeps_every_count() -> None:
    found = bins((1, 0, 7), (1, 0, 0), nonfinite=3)
    report = parse(to_json(judge(shown(chain((-0.1, 0.0)), found))))

    assert report.audit is not None
    (seen,) = [x.activation for x in report.audit.flow.layers if x.activation]
    assert found == seen.histogram


HUGE = [1e300, 1e-300, 2.0**-40]


@pytest.mark.parametrize("width", HUGE)
def test_any_scale_has_finite_places(width) -> None:
    small = only(one(bins((1, 2), start=-width, width=width)))

    words = " ".join(
        value or "" for x in small.every() for value in x.attributes.values()
    )
    assert not re.search(r"nan|inf", words)
