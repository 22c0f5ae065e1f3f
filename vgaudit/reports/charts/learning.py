"""Learning curves of a training run and of the controls beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from vgaudit.reports.charts import svg
from vgaudit.reports.charts.figure import Figure, Grid, called, figure
from vgaudit.reports.charts.lines import Panel, Series, chart, keys
from vgaudit.reports.charts.profile import Limit
from vgaudit.retraining import Epoch, Run

STEEP = 30.0
"""Ratio of the largest to the smallest loss from which its logarithm is drawn."""

ANY = (math.inf, -math.inf)
"""What the scale of a panel covers at least, where that is nothing."""

Reading = Callable[[Epoch], float | None]


def series(runs: Sequence[Run], read: Reading) -> tuple[Series, ...]:
    """Returns one curve a run of what ``read`` takes from each epoch."""
    return tuple(
        Series(
            called(run.name),
            tuple(float(epoch.number) for epoch in run.epochs),
            tuple(read(epoch) for epoch in run.epochs),
        )
        for run in runs
    )


def draw(
    runs: Sequence[Run], *, metric: str = "", limits: Sequence[Limit] = ()
) -> Figure | None:
    """Returns loss, metric, trunk and uniformity over epochs; None without any epoch.

    Args:
        runs: the treatment first, then the controls.
        metric: what ``Epoch.metric`` is, such as ``accuracy``.
        limits: of rules on the trunk; those of errors inside its scale are drawn.
    """
    if not any(run.epochs for run in runs):
        return None
    loss, steep = _loss(runs)
    name = "log₁₀ of the loss" if steep else "loss"
    panels = [_panel(loss, name, ANY)]
    marks = tuple((x.value, x.words) for x in limits if x.kind == "limit-error")
    for curves, title, least, shown in (
        (series(runs, lambda e: e.metric), metric or "metric", ANY, ()),
        (series(runs, lambda e: e.attenuation), "trunk, decades", (-4.0, 0.4), marks),
        (series(runs, uniformity_of), "uniformity, decades", (0.0, 1.0), ()),
    ):
        if any(value is not None for one in curves for value in one.y):
            panels.append(_panel(curves, title, least, shown))
    return Figure(
        name="learning-curves",
        title="Learning curves",
        caption="The treatment and its controls, from the same start with the same "
        "budget. The loss is that of the validation samples where there are any. "
        "Uniformity is the standard deviation over layers of log₁₀ of the gradient.",
        picture=svg.element("div", {"class": "panels"}, *panels),
        keys=keys(loss, [_last(run, metric) for run in runs]),
        grid=_grid(runs, metric),
    )


def loss_of(epoch: Epoch) -> float | None:
    """Returns the validation loss of an epoch, the training loss without one."""
    return epoch.valid_loss if epoch.valid_loss is not None else epoch.train_loss


def uniformity_of(epoch: Epoch) -> float | None:
    """Returns the standard deviation over layers; None where a layer has nothing."""
    found = epoch.uniformity
    return found if found is not None and math.isfinite(found) else None


def _loss(runs: Sequence[Run]) -> tuple[tuple[Series, ...], bool]:
    """Returns the curves of the loss, and whether their logarithm is drawn."""
    curves = series(runs, loss_of)
    known = [
        value
        for one in curves
        for value in one.y
        if value is not None and math.isfinite(value)
    ]
    steep = bool(known) and min(known) > 0 and max(known) / min(known) > STEEP
    if not steep:
        return curves, False
    return series(runs, lambda e: _log(loss_of(e))), True


def _log(value: float | None) -> float | None:
    return math.log10(value) if value is not None and value > 0 else None


def _panel(
    curves: Sequence[Series],
    title: str,
    least: tuple[float, float],
    marks: tuple[tuple[float, str], ...] = (),
) -> str:
    known = [
        value
        for one in curves
        for value in one.y
        if value is not None and math.isfinite(value)
    ]
    if math.isinf(least[0]):
        least = (min(known, default=0.0), max(known, default=1.0))
    words = "; ".join(f"{one.name}: {figure(_end(one), 3)}" for one in curves)
    panel = Panel(
        title=f"{called(title)} over epochs",
        description=f"At the end, {words}.",
        across="epoch",
        up="",
        least=least,
        height=200.0,
        marks=marks,
        level="error",
    )
    heading = svg.element("h4", {}, svg.text(called(title)))
    return svg.element("div", {"class": "panel"}, heading, chart(curves, panel))


def _end(one: Series) -> float | None:
    return next((value for value in reversed(one.y) if value is not None), None)


def _last(run: Run, metric: str) -> str:
    if not run.epochs:
        return ""
    kept = _kept(run)
    if metric and kept.metric is not None:
        return figure(kept.metric, 4)
    return figure(
        kept.valid_loss if kept.valid_loss is not None else kept.train_loss, 4
    )


def _kept(run: Run) -> Epoch:
    found = (epoch for epoch in run.epochs if epoch.number == run.best)
    return next(found, run.epochs[-1])


def _grid(runs: Sequence[Run], metric: str) -> Grid:
    columns = (
        "run",
        "#epoch kept",
        "#training loss",
        "#validation loss",
        f"#{called(metric) or 'metric'}",
        "#trunk, decades",
        "#seconds",
    )
    return Grid(columns, tuple(_cells(run) for run in runs if run.epochs))


def _cells(run: Run) -> tuple[str, ...]:
    kept = _kept(run)
    return (
        called(run.name),
        f"{kept.number}",
        *(figure(x, 4) for x in (kept.train_loss, kept.valid_loss, kept.metric)),
        figure(kept.attenuation),
        figure(sum(epoch.seconds for epoch in run.epochs), 1),
    )
