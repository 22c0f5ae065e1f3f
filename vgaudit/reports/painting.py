"""Charts on the axes of matplotlib: what each draws, from the figures of the report.

Nothing here imports matplotlib: the axes are given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vgaudit.flow import Cause, GradientFlow
from vgaudit.reports.charts import activations, budget, depth, histograms, profile
from vgaudit.reports.charts.lines import Series
from vgaudit.reports.charts.scale import Linear
from vgaudit.rules.budget import NOUNS
from vgaudit.rules.wording import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: dict[Cause, str] = {
    "activation": "#d55e00",
    "weights": "#0072b2",
    "normalization": "#009e73",
    "attention": "#cc79a7",
    "recurrence": "#e69f00",
    "pooling": "#56b4e9",
    "scale": "#8c564b",
    "merge": "#8d939d",
    "branches": "#4d5a75",
    "reshape": "#b9bdc5",
    "other": "#b9bdc5",
}
"""Okabe and Ito's, which colour-blind readers tell apart."""

LINES = ("#0072b2", "#d55e00", "#009e73", "#b0558a", "#b97c00", "#3d97cf")
DASHES = ("-", "--", ":", "-.", (0, (8, 2, 2, 2)), (0, (12, 4)))
LABELS = 12
"""Names below an axis; of more, some are left out."""

ACROSS = 6
"""Histograms beside each other."""

CELL = 1.7
"""Inches that a histogram takes in height, with its words."""

PALE = 0.35
"""How much of its colour a bar keeps that gives gradient back."""

Painter = Callable[["Axes"], None]


def budget_of(flow: GradientFlow) -> Painter:
    """Returns what draws the gradient budget."""
    found = budget.bars(flow)
    at = depth.axis(flow)

    def paint(axes: Axes) -> None:
        _budget_key(axes, found)
        for bar in found:
            left, right = budget.edges(bar, at)
            level = bar.station.start
            for part in (*bar.losses, *bar.gains):
                beside = bar.losses and bar.gains
                middle = (left + right) / 2
                lost = part.decades < 0
                start = middle if beside and lost else left
                end = middle if beside and not lost else right
                axes.bar(
                    start,
                    _finite(part.decades),
                    width=end - start,
                    bottom=_finite(level),
                    align="edge",
                    color=COLOURS[part.cause],
                    alpha=1.0 if lost else PALE,
                )
                level += part.decades
        _depth_axis(axes, flow, budget.scale(found))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)

    return paint


def _budget_key(axes: Axes, found: Sequence[budget.Bar]) -> None:
    """Names each cause in its full colour, and says what a pale one means."""
    parts = [part for bar in found for part in (*bar.losses, *bar.gains)]
    for cause in dict.fromkeys(part.cause for part in parts):
        axes.bar(0.0, 0.0, width=0.0, color=COLOURS[cause], label=NOUNS[cause])
    if any(part.decades > 0 for part in parts):
        pale = "pale: gives gradient back"
        axes.bar(0.0, 0.0, width=0.0, color="#16181d", alpha=PALE, label=pale)


def profile_of(flow: GradientFlow, limits: Sequence[profile.Limit]) -> Painter:
    """Returns what draws the depth profile with the limits inside its scale."""
    line, expected = profile.points(flow), profile.theory(flow)

    def paint(axes: Axes) -> None:
        x = [point.x for point in line]
        axes.fill_between(
            x,
            [_finite(point.lo) for point in line],
            [_finite(point.hi) for point in line],
            color="#16181d",
            alpha=0.13,
            linewidth=0,
        )
        axes.plot(x, [_gap(p.value) for p in line], color="#16181d", label="trunk")
        others = profile.beside(flow)
        if others:
            axes.plot(
                *zip(*others, strict=True), "o", color="#0072b2", ms=3, label="branches"
            )
        if expected:
            axes.plot(
                *zip(*expected, strict=True), "--", color="#cc79a7", label="mean field"
            )
        y = profile.scale(flow)
        for limit in limits:
            if y.low <= limit.value <= y.high:
                axes.axhline(limit.value, color="#b3400a", lw=0.8, ls="--")
                axes.text(0.5, limit.value, limit.words, fontsize=7, va="bottom")
        _depth_axis(axes, flow, y)
        axes.legend(frameon=False, fontsize=8)

    return paint


def activations_of(rows: Sequence[activations.Row]) -> Painter:
    """Returns what draws range, mean and deviation of every row."""

    def paint(axes: Axes) -> None:
        for i, row in enumerate(rows):
            z = row.flow.input
            low, high = _finite(z.min), _finite(z.max)
            mean, std = _finite(z.mean), _finite(z.std)
            axes.plot([low, high], [i, i], color="#8b919b", lw=1)
            left, right = max(mean - std, low), min(mean + std, high)
            axes.plot([left, right], [i, i], color="#0072b2", lw=5, alpha=0.75)
            axes.plot([mean], [i], "|", color="#16181d", ms=8)
        names = [_plain(row.name, 30) for row in rows]
        axes.set_yticks(range(len(rows)), names, fontsize=7)
        axes.invert_yaxis()
        axes.set_xlabel("input of the activation: range, mean ± deviation", fontsize=8)

    return paint


def histograms_of(smalls: Sequence[histograms.Small]) -> Painter:
    """Returns what draws the histograms as small multiples, the saturated marked."""
    down = math.ceil(len(smalls) / ACROSS)

    def paint(axes: Axes) -> None:
        axes.set_axis_off()
        whole: Any = axes.get_figure()
        whole.set_size_inches(10.0, CELL * down)
        for i, one in enumerate(smalls):
            row, column = divmod(i, ACROSS)
            # Shares of the picture: a cell, and what its words take.
            place = (
                column / ACROSS,
                1 - (row + 0.72) / down,
                0.85 / ACROSS,
                0.5 / down,
            )
            _small(axes.inset_axes(place), one)

    return paint


def _small(axes: Axes, one: histograms.Small) -> None:
    bins, marked = one.bins, "#d55e00" if one.row.flow.bounded else "#8d939d"
    edges = [bins.start + bins.width * i for i in range(len(bins.counts))]
    for counts, colour in ((bins.counts, "#0072b2"), (bins.saturated, marked)):
        axes.bar(edges, counts, width=bins.width, align="edge", color=colour)
    axes.set_title(_plain(one.row.name, 20), fontsize=7, loc="left", pad=2)
    axes.set_xlabel(
        f"{percent(one.saturated)} {one.noun}", fontsize=6, loc="left", labelpad=1
    )
    axes.set_yticks([])
    axes.tick_params(labelsize=6, pad=1, length=2)
    axes.locator_params(axis="x", nbins=3)
    axes.spines[["top", "left", "right"]].set_visible(False)


def curves(series: Sequence[Series], *, across: str, up: str) -> Painter:
    """Returns what draws lines over one axis, named ``across`` and ``up``."""

    def paint(axes: Axes) -> None:
        for i, one in enumerate(series):
            axes.plot(
                one.x,
                [math.nan if y is None else _gap(y) for y in one.y],
                color=LINES[i % len(LINES)],
                linestyle=DASHES[i % len(DASHES)],
                label=_plain(one.name, 40),
            )
        axes.set_xlabel(across, fontsize=8)
        axes.set_ylabel(up, fontsize=8)
        axes.legend(frameon=False, fontsize=8)

    return paint


def _depth_axis(axes: Axes, flow: GradientFlow, y: Linear) -> None:
    at, found = depth.axis(flow), depth.stations(flow, most=budget.MOST)
    shown = found[:: max(1, math.ceil(len(found) / LABELS))]
    axes.set_xlim(0.0, 100.0)
    axes.set_ylim(y.low, y.high)
    axes.set_xticks(
        [(at(station.far) + at(station.near)) / 2 for station in shown],
        [_plain(station.first, 14) for station in shown],
    )
    axes.axhline(0.0, color="#8b919b", lw=0.8)
    axes.set_xlabel("input … output", fontsize=8)
    axes.set_ylabel("decades", fontsize=8)


def _plain(name: str, length: int) -> str:
    """Returns a name that matplotlib does not take for a formula."""
    return depth.shortened(name, length).replace("$", r"\$")


def _finite(value: float) -> float:
    """Returns a figure that can be drawn: 0 for none, a far one for an infinity."""
    if math.isnan(value):
        return 0.0
    return min(max(value, -1e4), 1e4)


def _gap(value: float) -> float:
    return value if math.isfinite(value) else math.nan
