"""The charts of a report as PNG files, by matplotlib, which is an extra.

They draw what the charts of the HTML report draw, from the same figures.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from vgaudit.errors import BadConfig
from vgaudit.findings import Report
from vgaudit.flow import Cause, GradientFlow
from vgaudit.reports.charts import activations, budget, depth, lag, profile
from vgaudit.reports.charts.lines import Series
from vgaudit.reports.charts.scale import Linear
from vgaudit.retraining import Run
from vgaudit.rules.budget import NOUNS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (10.0, 3.6)
"""Inches."""

DOTS = 160
"""For each inch."""

COLOURS: dict[Cause, str] = {
    "activation": "#d55e00",
    "weights": "#0072b2",
    "normalization": "#009e73",
    "attention": "#cc79a7",
    "recurrence": "#e69f00",
    "pooling": "#56b4e9",
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

Painter = Callable[["Axes"], None]


def pictures(report: Report) -> dict[str, bytes]:
    """Returns the charts that there is something to draw for, by name.

    Raises:
        BadConfig: matplotlib is not installed.
    """
    if report.audit is None:
        return {}
    return {name: _drawn(paint) for name, paint in _painters(report, report.audit.flow)}


def training(runs: Sequence[Run]) -> dict[str, bytes]:
    """Returns the learning curves of a training: loss and trunk over the epochs.

    Raises:
        BadConfig: matplotlib is not installed.
    """
    from vgaudit.reports.charts import learning

    loss = learning.series(runs, learning.loss_of)
    trunk = learning.series(runs, lambda epoch: epoch.attenuation)
    return {
        name: _drawn(_curves(series, across="epoch", up=up))
        for name, series, up in (
            ("loss", loss, "loss"),
            ("trunk", trunk, "decades left at the input"),
        )
        if any(value is not None for one in series for value in one.y)
    }


def _painters(report: Report, flow: GradientFlow) -> Iterator[tuple[str, Painter]]:
    if flow.trunk and not flow.uncalibrated:
        limits = profile.limits(report.thresholds, report.optimizer)
        yield "gradient-budget", _budget(flow)
        yield "depth-profile", _profile(flow, limits)
    rows = activations.rows(flow)
    if rows:
        yield "activations", _activations(rows)
    curves = lag.series(flow)
    if curves:
        yield "gradient-against-lag", _curves(curves, across="steps back", up="decades")


def _drawn(paint: Painter) -> bytes:
    """Returns one picture; nothing of the caller's matplotlib is touched."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BadConfig(
            f"pictures need matplotlib: {error}",
            hint="python -m pip install 'vgaudit[plots]'",
        ) from error
    drawing: Any = Figure(figsize=SIZE, dpi=DOTS, layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    paint(axes)
    stream = io.BytesIO()
    drawing.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _budget(flow: GradientFlow) -> Painter:
    found = budget.bars(flow)
    at = depth.axis(flow)

    def paint(axes: Axes) -> None:
        named: set[Cause] = set()
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
                    alpha=1.0 if lost else 0.35,
                    label=None if part.cause in named else NOUNS[part.cause],
                )
                named.add(part.cause)
                level += part.decades
        _depth_axis(axes, flow, budget.scale(found))
        if named:
            axes.legend(frameon=False, fontsize=8)

    return paint


def _profile(flow: GradientFlow, limits: Sequence[profile.Limit]) -> Painter:
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


def _activations(rows: Sequence[activations.Row]) -> Painter:
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


def _curves(series: Sequence[Series], *, across: str, up: str) -> Painter:
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
