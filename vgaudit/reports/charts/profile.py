"""The depth profile: how much gradient is left at each place of the trunk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from vgaudit.findings import Optimizer
from vgaudit.flow import GradientFlow, MeanFieldLayer
from vgaudit.reports.charts import frame, svg
from vgaudit.reports.charts.depth import axis, labels, nodes, stations
from vgaudit.reports.charts.figure import Figure, Grid, Key, called, figure, tick
from vgaudit.reports.charts.scale import Linear, domain
from vgaudit.rules.exploding_gradient import ExplodingGradient
from vgaudit.rules.rule import Training
from vgaudit.rules.vanishing_gradient import VanishingGradient

R = TypeVar("R", VanishingGradient, ExplodingGradient)

HEIGHT = 260.0
LEAST = (-4.0, 0.4)
MOST_POINTS = 400
"""Points of a line; a deeper trunk is drawn by the lowest of several neighbours."""

MOST_ROWS = 60
"""Rows of the table: of a deeper trunk, one for several neighbours."""


@dataclass(frozen=True, slots=True)
class Point:
    """One place of the trunk: percent of the width, decades and their interval."""

    x: float
    value: float
    lo: float
    hi: float


@dataclass(frozen=True, slots=True)
class Limit:
    """A threshold of a rule, in decades, and what lies beyond it."""

    value: float
    words: str
    kind: str


def points(flow: GradientFlow, *, most: int = MOST_POINTS) -> tuple[Point, ...]:
    """Returns the profile from the input to the output, where it is 0."""
    found = [
        Point(x, step.attenuation.value, step.attenuation.lo, step.attenuation.hi)
        for x, step in nodes(flow)
    ]
    if len(found) > most:
        size = math.ceil(len(found) / most)
        runs = [found[i : i + size] for i in range(0, len(found), size)]
        found = [min(run, key=lambda point: point.value) for run in runs]
    return (*found, Point(100.0, 0.0, 0.0, 0.0)) if found else ()


def beside(flow: GradientFlow) -> tuple[tuple[float, float], ...]:
    """Returns place and decades of the weight layers that are not on the trunk."""
    at = axis(flow)
    return tuple(
        (at(layer.depth + 0.5), layer.attenuation.value)
        for layer in flow.layers
        if layer.weighted
        and not layer.trunk
        and layer.depth is not None
        and layer.attenuation is not None
        and math.isfinite(layer.attenuation.value)
    )


def theory(flow: GradientFlow) -> tuple[tuple[float, float], ...]:
    """Returns place and decades of the mean-field prediction, input first.

    It ends where the profile does, at 0 decades at the output.
    """
    if flow.deep is None or flow.deep.theory is None:
        return ()
    predicted: dict[str, MeanFieldLayer] = {}
    for layer in flow.deep.theory.layers:
        predicted.setdefault(layer.layer, layer)
    line = [
        (x, found.predicted)
        for x, step in nodes(flow)
        if (found := predicted.get(step.name) or predicted.get(step.layer or ""))
        and math.isfinite(found.predicted)
    ]
    return (*line, (100.0, 0.0)) if line else ()


def limits(
    flow: GradientFlow, thresholds: Mapping[str, float], optimizer: Optimizer
) -> tuple[Limit, ...]:
    """Returns the limits of VG101 and VG201 on the trunk of this net.

    Args:
        flow: what kind of net it is decides, too.
        thresholds: by ``rule.name``, as far as they are known; nothing is returned
            of a rule of which none is.
        optimizer: that will train the net.
    """
    training = Training(optimizer)
    lowest = _rule(VanishingGradient, thresholds)
    highest = _rule(ExplodingGradient, thresholds)
    found = [
        (level, value, beyond)
        for rule, beyond in ((lowest, "below"), (highest, "above"))
        if rule is not None
        for level, value in rule.limits(flow, training)
    ]
    return tuple(
        Limit(
            value,
            f"{level} {beyond} {tick(value)} under {optimizer}",
            f"limit-{level}",
        )
        for level, value, beyond in found
        if math.isfinite(value)
    )


def _rule(kind: type[R], thresholds: Mapping[str, float]) -> R | None:
    """Returns a rule with the thresholds that a report was judged by."""
    names = {spec.name: f"{kind.name}.{spec.name}" for spec in fields(kind)}
    given: dict[str, Any] = {
        n: thresholds[key] for n, key in names.items() if key in thresholds
    }
    return kind(**given) if given else None


def draw(
    flow: GradientFlow,
    marked: Sequence[Limit] = (),
    *,
    reach: tuple[float, float] = LEAST,
) -> Figure | None:
    """Returns the profile; None where the flow has no trunk.

    Args:
        flow: the measurement.
        marked: limits of rules; those beyond the scale are left out.
        reach: decades that the scale covers at least.
    """
    line = points(flow)
    if not line:
        return None
    expected, others = theory(flow), beside(flow)
    y = scale(flow, reach)
    inside = [x for x in marked if y.low <= x.value <= y.high]
    shapes = svg.stretched(
        HEIGHT,
        _band(line, y),
        svg.dots([(x, y(v)) for x, v in others], kind="beside"),
        *_runs(line, y),
        svg.path([(x, y(v)) for x, v in expected], kind="theory"),
    )
    picture = svg.plot(
        HEIGHT,
        "Depth profile",
        _described(line, inside),
        shade(inside, y),
        frame.levels(y, unit="decades"),
        *(frame.limit(y, x.value, x.words, kind=x.kind) for x in inside),
        shapes,
        _zeros(line, y),
        _names(flow),
        frame.direction(HEIGHT),
    )
    return Figure(
        name="depth-profile",
        title="Depth profile",
        caption="How much of the output’s gradient is left at each tensor that every "
        "path shares, with its 95 % interval over the batches.",
        picture=picture,
        keys=_keys(others, expected),
        grid=_grid(flow, expected),
    )


def scale(flow: GradientFlow, reach: tuple[float, float] = LEAST) -> Linear:
    """Returns the vertical scale that holds profile, layers and prediction."""
    line = points(flow)
    values = [x for point in line for x in (point.value, point.lo, point.hi)]
    values += [value for _, value in (*beside(flow), *theory(flow))]
    low, high = domain(values, least=reach)
    return Linear(low, high, HEIGHT - 6.0, 6.0)


def _runs(line: Sequence[Point], y: Linear) -> list[str]:
    """Returns the line, broken where there is no figure or no gradient."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in line:
        if math.isfinite(point.value):
            runs[-1].append((point.x, y(point.value)))
        elif runs[-1]:
            runs.append([])
    return [svg.path(run, kind="curve") for run in runs if run]


def _band(line: Sequence[Point], y: Linear) -> str:
    known = [p for p in line if math.isfinite(p.lo) and math.isfinite(p.hi)]
    upper = [(p.x, y(p.hi)) for p in known]
    lower = [(p.x, y(p.lo)) for p in reversed(known)]
    return svg.path([*upper, *lower], kind="band", closed=True)


def _zeros(line: Sequence[Point], y: Linear) -> str:
    """Returns a word where the gradient is exactly zero, or no number at all."""
    first = next((p for p in line if not math.isfinite(p.value)), None)
    if first is None:
        return ""
    words = "not a number" if math.isnan(first.value) else "zero gradient"
    if first.value > 0:
        words = "infinite"
    return svg.label(words, first.x, y(y.low) - 8, kind="mark")


def shade(marked: Sequence[Limit], y: Linear) -> str:
    """Returns the ground beyond the limits of errors."""
    shapes = []
    for limit in marked:
        if limit.kind == "limit-error":
            top, bottom = (
                (y(limit.value), y(y.low))
                if limit.value < 0
                else (y(y.high), y(limit.value))
            )
            shapes.append(svg.box(0, top, (100, bottom - top), kind="beyond", tip=""))
    return "".join(shapes)


def _names(flow: GradientFlow) -> str:
    at, found = axis(flow), stations(flow, most=48)
    middles = [(at(station.far) + at(station.near)) / 2 for station in found]
    return labels([station.first for station in found], middles, HEIGHT + 16)


def _described(line: Sequence[Point], marked: Sequence[Limit]) -> str:
    beyond = "; ".join(x.words for x in marked)
    rest = f" Limits: {beyond}." if beyond else ""
    return (
        f"Line from {figure(line[0].value)} decades at the input, left, to 0 at the "
        f"output, right.{rest}"
    )


def _keys(others: Sequence[object], expected: Sequence[object]) -> tuple[Key, ...]:
    found = [Key("k-curve", "trunk"), Key("k-band", "95 % interval")]
    if others:
        found.append(Key("k-beside", "weight layers in branches"))
    if expected:
        found.append(Key("k-theory", "mean-field prediction"))
    return tuple(found)


def _grid(flow: GradientFlow, expected: Sequence[tuple[float, float]]) -> Grid:
    found = stations(flow, most=MOST_ROWS)
    at = axis(flow)
    known = {round(x, 6): value for x, value in expected}
    rows = []
    for station in reversed(found):
        row = [
            called(station.name),
            *(figure(x) for x in (station.end, station.lo, station.hi)),
        ]
        if expected:
            row.append(figure(known.get(round(at(station.far), 6))))
        rows.append(tuple(row))
    heads = ("at the input of", "#decades", "#from", "#to")
    return Grid((*heads, "#predicted") if expected else heads, tuple(rows))
