"""Line charts of several series over one axis: lags, epochs, indices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vgaudit.reports.charts import frame, svg
from vgaudit.reports.charts.figure import Key
from vgaudit.reports.charts.scale import Linear, domain

KINDS = ("s-0", "s-1", "s-2", "s-3", "s-4", "s-5", "s-6", "s-7")
"""Classes of the lines, in the order in which they tell apart best."""

MOST_POINTS = 120


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its name, places and values; None or NaN breaks it.

    Attributes:
        name: in the legend.
        x, y: of the same length.
        band: lower and upper ends of an interval at each place, or nothing.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    band: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """How a line chart is drawn.

    Attributes:
        title, description: for screen readers.
        across: name of the horizontal axis.
        up: name of the vertical one.
        least: range that the vertical scale covers at least.
        height: pixels.
        marks: values at which a dashed line is drawn, with its words.
        level: that the marks are limits of: ``warning`` or ``error``.
    """

    title: str
    description: str
    across: str
    up: str
    least: tuple[float, float]
    height: float = 220.0
    marks: tuple[tuple[float, str], ...] = ()
    level: str = "warning"


def scales(series: Sequence[Series], panel: Panel) -> tuple[Linear, Linear]:
    """Returns the horizontal and the vertical scale that hold every series."""
    places = [x for one in series for x in one.x]
    values = [y for one in series for y in one.y]
    values += [edge for one in series for band in one.band for edge in band]
    left, right = min(places, default=0.0), max(places, default=1.0)
    low, high = domain(values, least=panel.least)
    return (
        Linear(left, right if right > left else left + 1.0, 0.0, 100.0),
        Linear(low, high, panel.height - 6.0, 6.0),
    )


def chart(series: Sequence[Series], panel: Panel) -> str:
    """Returns the picture of the series in one panel."""
    x, y = scales(series, panel)
    shapes = [
        shape
        for one, kind in zip(series, _kinds(len(series)), strict=True)
        for shape in (_band(one, x, y, kind), *_runs(one, x, y, kind))
    ]
    inside = [(v, words) for v, words in panel.marks if y.low <= v <= y.high]
    return svg.plot(
        panel.height,
        panel.title,
        panel.description,
        frame.levels(y, unit=panel.up),
        *(_mark(y(value), words, f"limit-{panel.level}") for value, words in inside),
        svg.stretched(panel.height, *shapes),
        frame.upright(x, panel.height),
        frame.named(panel.across, panel.height),
    )


def _mark(place: float, words: str, kind: str) -> str:
    line = svg.line((0, place), (100, place), kind=kind)
    return line + svg.label(words, 99.4, place - 5, kind=f"{kind} words", anchor="end")


def keys(series: Sequence[Series], figures: Sequence[str] = ()) -> tuple[Key, ...]:
    """Returns the legend; ``figures`` stand beside the names where given."""
    beside = [*figures, *[""] * (len(series) - len(figures))]
    return tuple(
        Key(f"k-{kind}", one.name, beside[i])
        for i, (one, kind) in enumerate(zip(series, _kinds(len(series)), strict=True))
    )


def _kinds(n: int) -> list[str]:
    return [KINDS[i % len(KINDS)] for i in range(n)]


def _runs(one: Series, x: Linear, y: Linear, kind: str) -> list[str]:
    """Returns the line in pieces between gaps; a piece of one point is a dot."""
    runs: list[list[tuple[float, float]]] = [[]]
    for at, value in _thinned(one):
        if value is not None and math.isfinite(value):
            runs[-1].append((x(at), y(value)))
        elif runs[-1]:
            runs.append([])
    return [
        svg.path(run, kind=f"line {kind}")
        if len(run) > 1
        else svg.dots(run, kind=f"dot {kind}")
        for run in runs
        if run
    ]


def _thinned(one: Series) -> list[tuple[float, float | None]]:
    pairs = list(zip(one.x, one.y, strict=True))
    step = math.ceil(len(pairs) / MOST_POINTS)
    kept = pairs[:: max(step, 1)]
    return kept if not pairs or kept[-1] == pairs[-1] else [*kept, pairs[-1]]


def _band(one: Series, x: Linear, y: Linear, kind: str) -> str:
    if not one.band:
        return ""
    known = [
        (at, low, high)
        for at, (low, high) in zip(one.x, one.band, strict=True)
        if math.isfinite(low) and math.isfinite(high)
    ]
    step = max(1, math.ceil(len(known) / MOST_POINTS))
    known = known[::step]
    upper = [(x(at), y(high)) for at, _, high in known]
    lower = [(x(at), y(low)) for at, low, _ in reversed(known)]
    return svg.path([*upper, *lower], kind=f"spread {kind}", closed=True)
