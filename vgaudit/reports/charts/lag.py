"""The gradient against the lag, for layers that read a sequence step by step."""

from __future__ import annotations

from collections.abc import Sequence

from vgaudit.flow import GradientFlow, RecurrenceFlow
from vgaudit.reports.charts.figure import Figure, Grid, called, figure
from vgaudit.reports.charts.lines import Panel, Series, chart, keys
from vgaudit.rules.wording import percent

HORIZON = -2.0
"""Decades at which 1 % of the gradient is left: the memory horizon."""

MOST = 8
LEAST = (-3.0, 0.4)


def series(flow: GradientFlow) -> tuple[Series, ...]:
    """Returns a curve for each recurrent layer, at most eight."""
    return tuple(
        Series(
            called(one.layer),
            tuple(map(float, one.lags)),
            tuple(at.value for at in one.decades),
            tuple((at.lo, at.hi) for at in one.decades),
        )
        for one in flow.recurrences[:MOST]
    )


def draw(flow: GradientFlow) -> Figure | None:
    """Returns the curves; None for a net without recurrent layers."""
    if not flow.recurrences:
        return None
    shown = series(flow)
    words = "; ".join(
        f"{one.name}: {_rate(rec)}"
        for one, rec in zip(shown, flow.recurrences, strict=False)
    )
    panel = Panel(
        title="Gradient against lag",
        description=f"One line a recurrent layer. {words}.",
        across="steps back in time",
        up="decades",
        least=LEAST,
        marks=((HORIZON, "1 % is left"),),
    )
    return Figure(
        name="gradient-against-lag",
        title="Memory",
        caption="How much of the gradient of the last state reaches a state so many "
        "steps earlier.",
        picture=chart(shown, panel),
        keys=keys(shown, [_rate(one) for one in flow.recurrences]),
        grid=_grid(flow.recurrences),
    )


def _rate(one: RecurrenceFlow) -> str:
    return f"{figure(one.rate.value, 3)} decades a step"


def _grid(found: Sequence[RecurrenceFlow]) -> Grid:
    columns = ("layer", "kind", "#steps", "#decades a step", "#at lag", "#horizon")
    return Grid((*columns, "most saturated gate"), tuple(map(_cells, found)))


def _cells(one: RecurrenceFlow) -> tuple[str, ...]:
    beyond = "beyond the sequence" if one.horizon is None else f"{one.horizon:,} steps"
    last = f"{figure(one.decades[-1].value)} at {one.lags[-1]:,}" if one.lags else "–"
    gate = max(one.gates, key=lambda gate: gate.saturated, default=None)
    return (
        called(one.layer),
        called(one.kind),
        f"{one.steps:,}",
        figure(one.rate.value, 3),
        last,
        beyond,
        f"{called(gate.name)} {percent(gate.saturated)}" if gate else "–",
    )
