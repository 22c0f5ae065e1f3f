"""What every plot has around its marks: levels, axes, and their labels."""

from __future__ import annotations

from vgaudit.reports.charts import svg
from vgaudit.reports.charts.figure import tick
from vgaudit.reports.charts.scale import Asinh, Linear


def levels(y: Linear, *, unit: str = "", most: int = 6) -> str:
    """Returns a hairline and a label outside for each round value of the scale.

    Args:
        y: from values to pixels.
        unit: stands once, above the topmost label.
        most: how many lines at most.
    """
    marks = []
    for value in y.ticks(most):
        place = y(value)
        kind = "zero" if value == 0 else "grid"
        marks.append(svg.line((0, place), (100, place), kind=kind))
        marks.append(svg.outside(tick(value), -8, place + 4))
    if unit:
        attributes = {"x": "-46", "y": "-9", "class": "t"}
        marks.append(svg.element("text", attributes, svg.text(unit)))
    return "".join(marks)


def direction(height: float) -> str:
    """Returns the ends of a depth axis, and which way the gradient travels."""
    y = height + 34
    return (
        svg.label("input", 0, y, kind="t end")
        + svg.label("← the gradient travels this way", 50, y, kind="t", anchor="middle")
        + svg.label("output", 100, y, kind="t end", anchor="end")
    )


def upright(x: Linear | Asinh, height: float, *, most: int = 6) -> str:
    """Returns labelled ticks below a plot whose ``x`` is a percentage."""
    marks = []
    for value in x.ticks(most):
        place = x(value)
        anchor = "start" if place < 3 else "end" if place > 97 else "middle"
        marks.append(svg.line((place, height), (place, height + 4), kind="axis"))
        marks.append(
            svg.label(tick(value), place, height + 16, kind="t", anchor=anchor)
        )
    return "".join(marks)


def named(words: str, height: float) -> str:
    """Returns the name of a horizontal axis, centred below its ticks."""
    return svg.label(words, 50, height + 34, kind="t", anchor="middle")


def limit(y: Linear, value: float, words: str, *, kind: str) -> str:
    """Returns a dashed line at a limit with its name.

    Profiles fall to the left: below 0 the name stands above the line's left end,
    above 0 at its right end, that of a warning under it.
    """
    place = y(value)
    line = svg.line((0, place), (100, place), kind=kind)
    if value <= 0:
        at = place - 5 if place > 24 else place + 14
        return line + svg.label(words, 0.6, at, kind=f"{kind} words")
    under = place + (14 if kind == "limit-warning" else -5)
    return line + svg.label(words, 99.4, under, kind=f"{kind} words", anchor="end")
