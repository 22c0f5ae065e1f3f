"""What a method reports of itself over the epochs: SDAGD's phases, RAI's gap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vgaudit.reports.charts import svg
from vgaudit.reports.charts.figure import Figure, Grid, called, figure
from vgaudit.reports.charts.lines import Panel, Series, chart, keys
from vgaudit.retraining import Epoch, Run
from vgaudit.rules.wording import number

LOSSES = ("forward loss", "relaxed loss")
"""Figures that belong in one panel: how far they are apart is the relaxation gap."""

MOST_ROWS = 60
RELAXED = (
    "The relaxed loss is that of the relaxed problem, in which every stage gets a "
    "target for its input. The network that is delivered has the forward loss; "
    "what it is higher is the relaxation gap."
)


def draw(run: Run) -> Figure | None:
    """Returns every figure of a method over the epochs; None where it has none."""
    epochs = [epoch for epoch in run.epochs if epoch.figures]
    if not epochs:
        return None
    names = list(dict.fromkeys(name for epoch in epochs for name in epoch.figures))
    panels = [_panel(group, epochs) for group in _groups(names).values()]
    relaxed = LOSSES[1] in names
    return Figure(
        name="own-figures",
        title=f"Figures of its own: {called(run.name)}",
        caption=RELAXED if relaxed else "What the method reports of itself.",
        picture=svg.element("div", {"class": "panels"}, *panels),
        keys=keys(_series(LOSSES, epochs)) if relaxed else (),
        grid=_grid(names, epochs),
    )


def _groups(names: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Returns the names of each panel by its heading; those of one scale together."""
    together = LOSSES if set(LOSSES) <= set(names) else ()
    alone = {name: (name,) for name in names if name not in together}
    return {"loss": together, **alone} if together else alone


def _series(names: Sequence[str], epochs: Sequence[Epoch]) -> tuple[Series, ...]:
    places = tuple(float(epoch.number) for epoch in epochs)
    return tuple(
        Series(called(name), places, tuple(e.figures.get(name) for e in epochs))
        for name in names
    )


def _panel(names: Sequence[str], epochs: Sequence[Epoch]) -> str:
    curves = _series(names, epochs)
    known = [y for one in curves for y in one.y if y is not None and math.isfinite(y)]
    title = "relaxed and forward loss" if len(names) > 1 else called(names[0])
    ends = (f"{one.name}: {_said(one.y[-1])}" for one in curves)
    panel = Panel(
        title=f"{title} over epochs",
        description=f"At the end, {'; '.join(ends)}.",
        across="epoch",
        up="",
        least=(min(known, default=0.0), max(known, default=1.0)),
        height=160.0,
    )
    heading = svg.element("h4", {}, svg.text(title))
    return svg.element("div", {"class": "panel"}, heading, chart(curves, panel))


def _grid(names: Sequence[str], epochs: Sequence[Epoch]) -> Grid:
    shown = epochs[-MOST_ROWS:]
    rest = len(epochs) - len(shown)
    rows = tuple(
        (str(epoch.number), *(_said(epoch.figures.get(name)) for name in names))
        for epoch in shown
    )
    columns = ("#epoch", *(f"#{called(name)}" for name in names))
    note = f"{rest:,} epochs before these: in the JSON report" if rest else ""
    return Grid(columns, rows, note)


def _said(value: float | None) -> str:
    return figure(value) if value is None else number(value)
