"""Histograms of the inputs of activations, as small multiples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from vgaudit.flow import GradientFlow, Histogram
from vgaudit.plain import visible
from vgaudit.reports.charts import activations, frame, svg
from vgaudit.reports.charts.activations import Row
from vgaudit.reports.charts.depth import shortened
from vgaudit.reports.charts.figure import Figure, Grid, Key, called, figure
from vgaudit.reports.charts.scale import Linear
from vgaudit.rules.wording import percent

MOST = 24
"""Histograms drawn; the table has more."""

MOST_ROWS = 64
HEIGHT = 64.0
NAME = 24
TICKS = 3


@dataclass(frozen=True, slots=True)
class Small:
    """One histogram with the activation call that it belongs to."""

    row: Row
    bins: Histogram

    @property
    def saturated(self) -> float:
        """Share of the finite values that are saturated."""
        return sum(self.bins.saturated) / max(sum(self.bins.counts), 1)

    @property
    def noun(self) -> str:
        """What a value without a slope is called for this activation."""
        return "saturated" if self.row.flow.bounded else "off"


def smalls(flow: GradientFlow, *, most: int = MOST) -> tuple[Small, ...]:
    """Returns the histograms in forward order; of too many, those worst off."""
    return tuple(
        Small(row, row.flow.histogram)
        for row in activations.rows(flow, most=most, measured=True)
        if row.flow.histogram is not None
    )


def draw(flow: GradientFlow) -> Figure | None:
    """Returns the picture; None where no histogram was taken."""
    total = len(smalls(flow, most=len(flow.layers)))
    shown = smalls(flow)
    if not shown:
        return None
    more = f" The {len(shown)} worst of {total:,} are drawn." if total > MOST else ""
    return Figure(
        name="histograms",
        title="Histograms of the inputs",
        caption="How the inputs of each activation are spread in the first batch, each "
        "on a scale of its own. Marked: those at which less than 5 % of the steepest "
        f"slope is left.{more}",
        picture=svg.element("div", {"class": "smalls"}, *map(_small, shown)),
        keys=_keys(shown),
        grid=_grid(smalls(flow, most=MOST_ROWS), total),
    )


def outline(counts: Sequence[int], tallest: int) -> str:
    """Returns the path of bars side by side, in a box 1000 wide and ``HEIGHT`` high.

    Args:
        counts: of each bin.
        tallest: the count that fills the height.
    """
    if not any(counts):
        return ""
    wide = 1000.0 / len(counts)
    steps = (
        f"V{svg.short(HEIGHT * (1 - count / tallest))}H{svg.short((i + 1) * wide)}"
        for i, count in enumerate(counts)
    )
    return f"M0 {svg.short(HEIGHT)}{''.join(steps)}V{svg.short(HEIGHT)}Z"


def scale(bins: Histogram) -> Linear:
    """Returns the horizontal scale of one histogram."""
    end = bins.start + bins.width * max(len(bins.counts), 1)
    return Linear(bins.start, end, 0.0, 100.0)


def quantile(bins: Histogram, share: float) -> float:
    """Returns the value below which a share of all lies, read inside its bin.

    NaN without a finite value; it is wrong by less than the width of a bin.
    """
    total = sum(bins.counts)
    if not total:
        return math.nan
    below = 0
    for i, upto in enumerate(accumulate(bins.counts)):
        if upto >= share * total and upto > below:
            inside = (share * total - below) / (upto - below)
            return bins.start + bins.width * (i + inside)
        below = upto
    return math.nan


def _small(one: Small) -> str:
    flow, bins, x = one.row.flow, one.bins, scale(one.bins)
    kind = visible(flow.kind, length=NAME)
    name = svg.element(
        "div",
        {"class": "name", "title": called(one.row.name)},
        svg.text(shortened(one.row.name, NAME)),
        *(
            [" ", svg.element("i", {}, svg.text(kind))]
            if kind not in one.row.name
            else []
        ),
    )
    tallest = max(bins.counts, default=1)
    marked = "low" if flow.bounded else "off"
    shapes = [
        svg.element("path", {"class": name, "d": path})
        for name, path in (
            ("body", outline(bins.counts, tallest)),
            (marked, outline(bins.saturated, tallest)),
        )
        if path
    ]
    marks = [
        svg.stretched(HEIGHT, *shapes),
        svg.line((0, HEIGHT), (100, HEIGHT), kind="axis"),
    ]
    if x.low < 0 < x.high:
        marks.append(svg.line((x(0.0), 0), (x(0.0), HEIGHT), kind="zero"))
    ticks = frame.upright(x, HEIGHT, most=TICKS) if bins.counts else ""
    picture = svg.plot(HEIGHT, "Histogram", _described(one), *marks, ticks)
    return svg.element("div", {"class": "small"}, name, picture, _words(one))


def _words(one: Small) -> str:
    odd = f", {one.bins.nonfinite:,} not finite" if one.bins.nonfinite else ""
    return svg.element("b", {}, svg.text(f"{percent(one.saturated)} {one.noun}{odd}"))


def _described(one: Small) -> str:
    ends = scale(one.bins)
    return (
        f"Inputs of {called(one.row.name)}: {one.bins.values:,} values from "
        f"{figure(ends.low)} to {figure(ends.high)}, half of them below "
        f"{figure(quantile(one.bins, 0.5))}; {percent(one.saturated)} {one.noun}."
    )


def _keys(shown: Sequence[Small]) -> tuple[Key, ...]:
    found = [Key("k-body", "inputs")]
    if any(one.row.flow.bounded for one in shown):
        found.append(Key("k-low", "saturated"))
    if not all(one.row.flow.bounded for one in shown):
        found.append(Key("k-off", "off"))
    return tuple(found)


def _grid(shown: Sequence[Small], total: int) -> Grid:
    columns = ("activation", "kind", "#values", "#from", "#5 %", "#median", "#95 %")
    left_out = total - len(shown)
    note = f"{left_out:,} more, healthier ones: in the JSON report" if left_out else ""
    rest = ("#to", "#saturated or off", "#not finite")
    return Grid((*columns, *rest), tuple(map(_cells, shown)), note)


def _cells(one: Small) -> tuple[str, ...]:
    bins, ends = one.bins, scale(one.bins)
    places = (ends.low, *(quantile(bins, q) for q in (0.05, 0.5, 0.95)), ends.high)
    return (
        called(one.row.name),
        visible(one.row.flow.kind, length=NAME),
        f"{bins.values:,}",
        *(figure(value) if bins.counts else "–" for value in places),
        percent(one.saturated),
        f"{bins.nonfinite:,}",
    )
