"""Two measurements over one depth: before and after a treatment."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from vgaudit.flow import GradientFlow
from vgaudit.reports.charts import budget, frame, profile, svg
from vgaudit.reports.charts.figure import Figure, Grid, Key, figure
from vgaudit.reports.charts.profile import Limit, Point
from vgaudit.reports.charts.scale import Linear

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Places of the depth at which the table reads both profiles."""


def reach(flows: Sequence[GradientFlow]) -> tuple[float, float]:
    """Returns the decades that a budget's scale must cover to hold all flows."""
    found = [bar for flow in flows for bar in budget.bars(flow)]
    if not found:
        return budget.LEAST
    scale = budget.scale(found)
    return scale.low, scale.high


def budgets(named: Sequence[tuple[str, GradientFlow]]) -> tuple[Figure, ...]:
    """Returns the gradient budget of each flow, all on one scale, titled by name."""
    common = reach([flow for _, flow in named])
    found = []
    for name, flow in named:
        drawn = budget.draw(flow, reach=common)
        if drawn is not None:
            found.append(
                Figure(
                    name=drawn.name,
                    title=name,
                    caption="",
                    picture=drawn.picture,
                    keys=drawn.keys,
                    grid=drawn.grid,
                )
            )
    return tuple(found)


def profiles(
    before: GradientFlow, after: GradientFlow, marked: Sequence[Limit] = ()
) -> Figure | None:
    """Returns both depth profiles in one picture; None where one has no trunk.

    The axis is the share of the depth, so that a treated net with other layers can
    stand beside the one it came from.
    """
    old, new = profile.points(before), profile.points(after)
    if not old or not new:
        return None
    first, second = profile.scale(before), profile.scale(after)
    y = Linear(
        min(first.low, second.low), max(first.high, second.high), first.start, first.end
    )
    inside = [x for x in marked if y.low <= x.value <= y.high]
    shapes = svg.stretched(
        profile.HEIGHT, _line(old, y, kind="old"), _line(new, y, kind="new")
    )
    picture = svg.plot(
        profile.HEIGHT,
        "Depth profile before and after",
        f"Before, {figure(old[0].value)} decades are left at the input; after, "
        f"{figure(new[0].value)}.",
        profile.shade(inside, y),
        frame.levels(y, unit="decades"),
        *(frame.limit(y, x.value, x.words, kind=x.kind) for x in inside),
        shapes,
        frame.direction(profile.HEIGHT),
    )
    return Figure(
        name="before-and-after",
        title="Depth profile before and after",
        caption="How much of the output’s gradient is left on the way to the input.",
        picture=picture,
        keys=(
            Key("k-old", "before", figure(old[0].value)),
            Key("k-new", "after", figure(new[0].value)),
        ),
        grid=_grid(old, new),
    )


def at(line: Sequence[Point], share: float) -> float:
    """Returns the decades of a profile at a share of the depth from the input.

    Between two places, the figure lies on the straight line between theirs.
    """
    x = 100.0 * share
    for a, b in itertools.pairwise(line):
        if a.x <= x <= b.x:
            part = (x - a.x) / (b.x - a.x) if b.x > a.x else 1.0
            return a.value + part * (b.value - a.value)
    return line[0].value if x < line[0].x else line[-1].value


def _line(line: Sequence[Point], y: Linear, *, kind: str) -> str:
    known = [(p.x, y(p.value)) for p in line if math.isfinite(p.value)]
    return svg.path(known, kind=kind)


def _grid(old: Sequence[Point], new: Sequence[Point]) -> Grid:
    rows = tuple(
        (f"{100 * share:.0f} %", figure(at(old, share)), figure(at(new, share)))
        for share in SHARES
    )
    return Grid(("depth from the input", "#before", "#after"), rows)
