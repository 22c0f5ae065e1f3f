"""Activations: where their inputs lie, and what share of them passes a gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vgaudit.flow import ActivationFlow, GradientFlow, Moments
from vgaudit.plain import visible
from vgaudit.reports.charts import frame, svg
from vgaudit.reports.charts.depth import shortened
from vgaudit.reports.charts.figure import Figure, Grid, called, figure
from vgaudit.reports.charts.scale import Asinh, Linear, domain
from vgaudit.rules.wording import percent

MOST = 24
"""Rows drawn; the table has more."""

MOST_ROWS = 64
ROW = 26.0
TAIL = 0.05
"""Share of φ's steepest slope below which an input counts as saturated."""

RAILS = {
    "sigmoid": 2.0 * math.atanh(math.sqrt(1.0 - TAIL)),
    "tanh": math.atanh(math.sqrt(1.0 - TAIL)),
}
"""|z| from which φ′(z) < TAIL · max φ′: φ′ is 1 − tanh² of z, for sigmoid of z / 2."""

WIDE_RANGE = 20.0
"""Largest |z| up to which a linear scale shows all rows well."""


@dataclass(frozen=True, slots=True)
class Row:
    """One activation call."""

    name: str
    flow: ActivationFlow

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of inputs on the low side, in between, and on the high side."""
        low, high = (
            min(max(x, 0.0), 1.0) if math.isfinite(x) else 0.0
            for x in (self.flow.saturated_low, self.flow.saturated_high)
        )
        return low, max(1.0 - low - high, 0.0), high


def rows(
    flow: GradientFlow, *, most: int = MOST, measured: bool = False
) -> tuple[Row, ...]:
    """Returns the activations in forward order; of too many, those worst off.

    Args:
        flow: the measurement.
        most: how many at most.
        measured: only those with a histogram.
    """
    found = [
        Row(_name(x.path, x.call), x.activation)
        for x in flow.layers
        if x.activation is not None and (x.activation.histogram or not measured)
    ]
    if len(found) > most:
        worst = sorted(range(len(found)), key=lambda i: _health(found[i].flow))
        found = [found[i] for i in sorted(worst[:most])]
    return tuple(found)


def _name(path: str, call: int) -> str:
    return f"{path} call {call + 1}" if call else path


def _health(flow: ActivationFlow) -> float:
    """Returns how well an activation passes the gradient; low is bad."""
    blocked = flow.saturated if flow.bounded else 0.0
    slope = flow.slope_mean_square / flow.slope_max**2 if flow.slope_max else 0.0
    value = slope - blocked - 2 * flow.dead_fraction
    return value if math.isfinite(value) else -math.inf


def draw(flow: GradientFlow) -> Figure | None:
    """Returns the picture; None where no activation was seen."""
    total = sum(layer.activation is not None for layer in flow.layers)
    shown = rows(flow)
    if not shown:
        return None
    x = scale(shown)
    head = svg.element(
        "div",
        {"class": "row head"},
        svg.element("span", {"class": "name"}, "activation"),
        svg.element("span", {}, "input z: range, mean ± deviation"),
        svg.element("span", {}, "share of inputs"),
    )
    foot = svg.element(
        "div",
        {"class": "row foot"},
        svg.element("span", {"class": "name"}),
        svg.plot(20, "Scale of z", "Labels.", frame.upright(x, 0.0, most=5)),
        svg.element("span", {}),
    )
    lines = [_row(row, x) for row in shown]
    more = f" The {len(shown)} worst of {total:,} are drawn." if total > MOST else ""
    return Figure(
        name="activations",
        title="Inputs and saturation",
        caption="Where the inputs of each activation lie, and what share of them is "
        "saturated: less than 5 % of the steepest slope is left there. Shaded: where "
        f"that begins, for sigmoid and tanh.{more}",
        picture=svg.element("div", {"class": "rows"}, head, *lines, foot),
        grid=_grid(rows(flow, most=MOST_ROWS), total),
    )


def scale(shown: Sequence[Row]) -> Linear | Asinh:
    """Returns the scale of z on which every range fits, the same for all rows."""
    ends = [v for r in shown for v in (r.flow.input.min, r.flow.input.max)]
    low, high = domain(ends, least=(-2.5, 2.5))
    if max(-low, high) <= WIDE_RANGE:
        return Linear(low, high, 0.0, 100.0)
    return Asinh(low, high, 0.0, 100.0)


def _row(row: Row, x: Linear | Asinh) -> str:
    flow, kind = row.flow, visible(row.flow.kind, length=24)
    name = svg.element(
        "span",
        {"class": "name", "title": called(row.name)},
        svg.text(shortened(row.name, 30)),
        *([" ", svg.element("i", {}, svg.text(kind))] if kind not in row.name else []),
    )
    return svg.element(
        "div", {"class": "row"}, name, _range(flow, row.name, x), _shares(row)
    )


def _range(flow: ActivationFlow, name: str, x: Linear | Asinh) -> str:
    z, middle = flow.input, ROW / 2
    words = (
        f"Input of {called(name)}: from {figure(z.min)} to {figure(z.max)}, mean "
        f"{figure(z.mean)}, standard deviation {figure(z.std)}."
    )
    marks = [_rails(flow.kind, x)]
    if all(map(math.isfinite, (z.min, z.max))):
        marks.append(svg.line((x(z.min), middle), (x(z.max), middle), kind="whisker"))
    if all(map(math.isfinite, (z.mean, z.std))):
        marks += _spread(z, x, middle)
    return svg.plot(ROW, "Range of inputs", words, *marks)


def _spread(z: Moments, x: Linear | Asinh, middle: float) -> list[str]:
    left, right = x(max(z.mean - z.std, z.min)), x(min(z.mean + z.std, z.max))
    body = svg.box(left, middle - 4, (right - left, 8), kind="body", tip="")
    return [
        body,
        svg.line((x(z.mean), middle - 6), (x(z.mean), middle + 6), kind="mean"),
    ]


def _rails(kind: str, x: Linear | Asinh) -> str:
    """Returns the ground where an activation of this kind is saturated."""
    if kind not in RAILS:
        return ""
    low, high = x(-RAILS[kind]), x(RAILS[kind])
    left = svg.box(0, 0, (low, ROW), kind="beyond", tip="") if low > 0 else ""
    right = svg.box(high, 0, (100 - high, ROW), kind="beyond", tip="")
    return left + (right if high < 100 else "")


def _shares(row: Row) -> str:
    low, open_share, high = row.shares
    kinds = ("low", "open", "high") if row.flow.bounded else ("off", "open", "off")
    marks, left = [], 0.0
    for share, kind in zip((low, open_share, high), kinds, strict=True):
        if share > 0:
            marks.append(
                svg.box(100 * left, 7, (100 * share, ROW - 14), kind=kind, tip="")
            )
        left += share
    spoken = f"{percent(low)} low, {percent(high)} high, {percent(open_share)} between."
    bar = svg.plot(ROW, "Saturated share", spoken, *marks)
    noun = "saturated" if row.flow.bounded else "off"
    dead = f", {row.flow.dead_units:,} dead" if row.flow.dead_units else ""
    words = svg.element("b", {}, svg.text(f"{percent(low + high)} {noun}{dead}"))
    return svg.element("div", {"class": "share"}, bar, words)


def _grid(shown: Sequence[Row], total: int) -> Grid:
    columns = (
        "activation",
        "kind",
        "#mean z",
        "#deviation",
        "#min",
        "#max",
        "#slope²",
        "#low",
        "#high",
        "#dead units",
    )
    left_out = total - len(shown)
    note = f"{left_out:,} more, healthier ones: in the JSON report" if left_out else ""
    return Grid(columns, tuple(_cells(row) for row in shown), note)


def _cells(row: Row) -> tuple[str, ...]:
    flow, z = row.flow, row.flow.input
    units = f"{flow.dead_units:,} of {flow.units:,}" if flow.units else "–"
    return (
        called(row.name),
        visible(flow.kind, length=24),
        *(figure(value) for value in (z.mean, z.std, z.min, z.max)),
        figure(flow.slope_mean_square, 4),
        percent(flow.saturated_low),
        percent(flow.saturated_high),
        units,
    )
