"""The charts of a report as PNG files, by matplotlib, which is an extra.

They draw what the charts of the HTML report draw, from the same figures.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

from vgaudit.errors import BadConfig
from vgaudit.findings import Report
from vgaudit.flow import GradientFlow
from vgaudit.reports import painting
from vgaudit.reports.charts import activations, histograms, lag, profile
from vgaudit.reports.painting import Painter
from vgaudit.retraining import Run

SIZE = (10.0, 3.6)
"""Inches."""

DOTS = 160
"""For each inch."""


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
        name: _drawn(painting.curves(series, across="epoch", up=up))
        for name, series, up in (
            ("loss", loss, "loss"),
            ("trunk", trunk, "decades left at the input"),
        )
        if any(value is not None for one in series for value in one.y)
    }


def _painters(report: Report, flow: GradientFlow) -> Iterator[tuple[str, Painter]]:
    if flow.trunk and not flow.uncalibrated:
        limits = profile.limits(flow, report.thresholds, report.optimizer)
        yield "gradient-budget", painting.budget_of(flow)
        yield "depth-profile", painting.profile_of(flow, limits)
    rows = activations.rows(flow)
    if rows:
        yield "activations", painting.activations_of(rows)
    smalls = histograms.smalls(flow)
    if smalls:
        yield "histograms", painting.histograms_of(smalls)
    curves = lag.series(flow)
    if curves:
        paint = painting.curves(curves, across="steps back", up="decades")
        yield "gradient-against-lag", paint


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
