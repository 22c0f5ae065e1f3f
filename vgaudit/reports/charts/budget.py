"""The gradient budget: a waterfall over depth, each loss split into its causes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vgaudit.flow import Cause, GradientFlow, TrunkStep
from vgaudit.plain import visible
from vgaudit.reports.charts import frame, svg
from vgaudit.reports.charts.depth import (
    Depth,
    Station,
    axis,
    labels,
    shortened,
    spoken,
    stations,
)
from vgaudit.reports.charts.figure import Figure, Grid, Key, called, figure
from vgaudit.reports.charts.scale import Linear, domain
from vgaudit.rules.budget import NOUNS
from vgaudit.rules.wording import count

MOST = 48
"""Bars that stay legible on a narrow page; of deeper nets, a bar is several layers."""

HEIGHT = 300.0
LEAST = (-4.0, 0.4)
"""The scale reaches at least this far, so that a healthy net looks flat."""

GAP = 0.16
"""Share of a bar's room that stays empty."""

WIDEST = 16.0
"""Percent of the plot that one bar takes at most, with its gains beside it."""

WORST = 16
"""The longest name that stands beside the worst bar."""

CAUSES: tuple[Cause, ...] = (
    "activation",
    "weights",
    "normalization",
    "attention",
    "recurrence",
    "pooling",
    "scale",
    "merge",
    "branches",
    "reshape",
    "other",
)


_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Part:
    """What one cause takes (negative) or gives back in one station, in decades."""

    cause: Cause
    decades: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A station and its parts: first what is lost, then what is given back."""

    station: Station
    losses: tuple[Part, ...]
    gains: tuple[Part, ...]


def bars(flow: GradientFlow, *, most: int = MOST) -> tuple[Bar, ...]:
    """Returns the budget as bars, nearest the input first."""
    return tuple(
        Bar(station, *_split(station.steps)) for station in stations(flow, most=most)
    )


def _split(
    steps: Iterable[TrunkStep],
) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Returns losses and gains by cause; what a cause nets to counts."""
    total: dict[Cause, float] = {}
    for step in steps:
        total[step.cause] = total.get(step.cause, 0.0) + step.gain.value
    parts = [Part(cause, total[cause]) for cause in CAUSES if cause in total]
    # NaN is neither: it shows in the table.
    losses = tuple(part for part in parts if part.decades < 0)
    return losses, tuple(part for part in parts if part.decades > 0)


def draw(flow: GradientFlow, *, reach: tuple[float, float] = LEAST) -> Figure | None:
    """Returns the waterfall; None where the flow has no trunk.

    Args:
        flow: the measurement.
        reach: decades that the scale covers at least.
    """
    found = bars(flow)
    if not found:
        return None
    y = scale(found, reach)
    at = axis(flow)
    marks = [_drawn(bar, edges(bar, at), y) for bar in found]
    middles = [(at(bar.station.far) + at(bar.station.near)) / 2 for bar in found]
    names = labels([bar.station.first for bar in found], middles, HEIGHT + 16)
    picture = svg.plot(
        HEIGHT,
        "Gradient budget",
        _described(flow, found),
        frame.levels(y, unit="decades"),
        _joints(found, at, y),
        *marks,
        _worst(found, middles, y),
        names,
        frame.direction(HEIGHT),
    )
    return Figure(
        name="gradient-budget",
        title="Gradient budget",
        caption=_caption(found, at.layers),
        picture=picture,
        keys=_keys(flow),
        grid=_grid(found),
    )


def scale(found: Sequence[Bar], reach: tuple[float, float] = LEAST) -> Linear:
    """Returns the vertical scale that holds every level of the bars."""
    levels = [x for bar in found for x in (*_levels(bar), bar.station.end)]
    low, high = domain(levels, least=reach)
    return Linear(low, high, HEIGHT - 6.0, 6.0)


def _levels(bar: Bar) -> list[float]:
    level, found = bar.station.start, [bar.station.start]
    for part in (*bar.losses, *bar.gains):
        level += part.decades
        found.append(level)
    return found


def edges(bar: Bar, at: Depth) -> tuple[float, float]:
    """Returns the sides of a bar: narrower than its room, and never very wide."""
    left, right = at(bar.station.far), at(bar.station.near)
    middle, half = (left + right) / 2, (right - left) * (1 - GAP) / 2
    widest = WIDEST if bar.gains and bar.losses else WIDEST / 2
    half = min(half, widest / 2)
    return middle - half, middle + half


def _joints(found: Sequence[Bar], at: Depth, y: Linear) -> str:
    """Returns hairlines from each bar to the next one towards the input."""
    sides = [edges(bar, at) for bar in found]
    ends = [0.0, *(right for _, right in sides[:-1])]
    return "".join(
        svg.line((end, y(bar.station.end)), (left, y(bar.station.end)), kind="joint")
        for bar, (left, _), end in zip(found, sides, ends, strict=True)
        if math.isfinite(bar.station.end)
    )


def _drawn(bar: Bar, place: tuple[float, float], y: Linear) -> str:
    """Returns the bar: losses on the output's side, gains beside them."""
    left, right = place
    middle = (left + right) / 2 if bar.gains and bar.losses else left
    marks, level = [], bar.station.start
    for part in bar.losses:
        marks.append(_part(part, level, (middle, right), y))
        level += part.decades
    for part in bar.gains:
        edge = (left, middle) if bar.losses else (left, right)
        marks.append(_part(part, level, edge, y))
        level += part.decades
    here, after = _signed(bar.station.gain), figure(bar.station.end)
    tip = f"{called(bar.station.name)}: {here} decades, {after} in all"
    return svg.element("g", {}, svg.element("title", {}, svg.text(tip)), *marks)


def _part(part: Part, level: float, place: tuple[float, float], y: Linear) -> str:
    top, bottom = sorted((y(level), y(level + part.decades)))
    kind = f"c-{part.cause}" + (" back" if part.decades > 0 else "")
    size = (place[1] - place[0], max(bottom - top, 0.75))
    return svg.box(place[0], top, size, kind=kind, tip="")


def _worst(found: Sequence[Bar], middles: Sequence[float], y: Linear) -> str:
    """Returns the name of the station that loses most, beside its bar."""
    if len(found) < 3:
        return ""
    i = min(range(len(found)), key=lambda i: _rank(found[i].station.gain))
    gain = found[i].station.gain
    if not gain < -0.3:
        return ""
    station = found[i].station
    words = f"{shortened(spoken(station.first), WORST)} {_signed(gain, 1)}"
    # The stairs rise to the right: above a bar there is room on its left, below it
    # on its right.
    below = y(station.end) + 15
    if middles[i] >= 35 or below > HEIGHT:
        anchor = "end" if middles[i] >= 20 else "start"
        above = y(station.start) - 7
        return svg.label(words, middles[i], above, kind="mark", anchor=anchor)
    return svg.label(words, middles[i], below, kind="mark")


def _rank(gain: float) -> float:
    return math.inf if math.isnan(gain) else gain


def _signed(value: float, digits: int = 2) -> str:
    return f"+{figure(value, digits)}" if value > 0 else figure(value, digits)


def _described(flow: GradientFlow, found: Sequence[Bar]) -> str:
    total = figure(found[0].station.end)
    parts = ", ".join(f"{key.name} {key.figure}" for key in _keys(flow))
    return (
        "Waterfall from the output, right, at 0 decades to the input, left, at "
        f"{total} decades. By cause: {parts}."
    )


def _caption(found: Sequence[Bar], layers: int) -> str:
    each = max(bar.station.far - bar.station.near for bar in found)
    per = "one weight layer" if each == 1 else f"up to {count(each, 'weight layer')}"
    back = any(bar.gains for bar in found)
    hollow = " Hollow parts give gradient back." if back else ""
    return (
        f"Read from the right: decades (powers of ten) that the gradient loses on its "
        f"way to the input. A bar is {per} with what follows it, of {layers:,} in all."
        f"{hollow}"
    )


def _keys(flow: GradientFlow) -> tuple[Key, ...]:
    """Returns the causes with what they cost in all, the dearest first."""
    total = flow.budget()
    kinds = {x.path: x.activation.kind for x in flow.layers if x.activation is not None}
    slopes = {
        kinds[name]
        for step in flow.trunk
        if step.cause == "activation"
        for name in (step.name, step.layer or "")
        if name in kinds
    }
    nouns = dict(NOUNS)
    if len(slopes) == 1:
        nouns["activation"] = f"{visible(slopes.pop(), length=24)} slopes"
    shown = sorted(total, key=lambda cause: _rank(total[cause]))
    return tuple(
        Key(f"c-{cause}", nouns[cause], _signed(total[cause])) for cause in shown
    )


def _grid(found: Sequence[Bar]) -> Grid:
    present = [c for c in CAUSES if any(_of(bar, c) is not None for bar in found)]
    rows = tuple(
        (
            called(bar.station.name),
            *(_signed_or_none(_of(bar, cause)) for cause in present),
            _signed(bar.station.gain),
            figure(bar.station.end),
        )
        for bar in reversed(found)
    )
    heads = tuple(f"#{NOUNS[cause]}" for cause in present)
    return Grid(("from output to input", *heads, "#sum", "#left over"), rows)


def _signed_or_none(value: float | None) -> str:
    return "–" if value is None else _signed(value)


def _of(bar: Bar, cause: Cause) -> float | None:
    values = [s.gain.value for s in bar.station.steps if s.cause == cause]
    return sum(values) if values else None


def lost(value: float) -> str:
    """Returns ``one part in 4,000`` for −3.6 decades; nothing above −1."""
    if not math.isfinite(value) or value > -1:
        return ""
    if value < -12:
        return f"one part in 10{str(round(-value)).translate(_RAISED)}"
    size = 10.0 ** round(-value, 1)
    first = 10 ** int(math.log10(size) + 1e-9)
    return f"one part in {round(size / first) * first:,}"
