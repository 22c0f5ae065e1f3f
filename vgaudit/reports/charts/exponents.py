"""The sizes of every parameter's gradient, beside what the number formats can hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle, groupby

from vgaudit.flow import Exponents, GradientFlow, ParameterPrecision
from vgaudit.reports.charts import svg
from vgaudit.reports.charts.depth import shortened
from vgaudit.reports.charts.figure import Figure, Grid, Key, called
from vgaudit.reports.charts.scale import Linear, round_values
from vgaudit.rules.wording import percent

MOST = 40
"""Parameters drawn: those that float16 loses most of; the table has more."""

MOST_ROWS = 64
ROW = 16.0
LIMITS = ((-25, "float16: 0 below"), (-14, "fewer digits below"))
"""Binary exponents below which float16 rounds to 0, and below which it is subnormal."""

SHARES = (0.001, 0.01, 0.05, 0.2)
"""Shares of a parameter's gradient from which a cell is darker."""


def rows(found: Sequence[ParameterPrecision]) -> tuple[ParameterPrecision, ...]:
    """Returns the parameters to draw, in forward order."""
    if len(found) <= MOST:
        return tuple(found)
    worst = sorted(range(len(found)), key=lambda i: -found[i].lost("float16"))
    return tuple(found[i] for i in sorted(worst[:MOST]))


def draw(flow: GradientFlow) -> Figure | None:
    """Returns the picture; None where number formats were not measured."""
    found = flow.deep.precision if flow.deep is not None else ()
    shown = rows([one for one in found if any(one.exponents.counts)])
    if not shown:
        return None
    x, height = scale(shown), ROW * len(shown)
    cells = svg.stretched(height, *_cells(shown, x))
    names = [
        svg.outside(shortened(one.name), -8, (i + 0.5) * ROW + 4)
        for i, one in enumerate(shown)
    ]
    words = f"Rows are {len(shown)} parameters, columns are powers of ten."
    title = "Sizes of the gradient"
    picture = svg.plot(
        height, title, words, cells, *names, _limits(x, height), _ticks(x, height)
    )
    more = f" The {len(shown)} of {len(found):,} that float16 loses most of."
    return Figure(
        name="gradient-sizes",
        title="Number formats",
        caption="How large the elements of each parameter’s gradient are; darker is "
        "more of them." + (more if len(shown) < len(found) else ""),
        picture=svg.element("div", {"class": "heat"}, picture),
        keys=tuple(
            Key(f"d-{i + 1}", f"from {percent(share)}")
            for i, share in enumerate(SHARES)
        ),
        grid=_grid(found),
    )


def scale(shown: Sequence[ParameterPrecision]) -> Linear:
    """Returns the scale of binary exponents that holds all rows and float16's ends."""
    ends = [edge for one in shown for edge in _reach(one.exponents)]
    return Linear(min(-26.0, *ends), max(-10.0, *ends), 0.0, 100.0)


def _reach(exponents: Exponents) -> tuple[int, int]:
    """Returns the least and the largest exponent of a cell, the latter plus one.

    Where no exponent has share enough for a cell, the ends of all that occur.
    """
    total = max(exponents.total, 1)
    used = [i for i, n in enumerate(exponents.counts) if depth(n / total)]
    used = used or [i for i, n in enumerate(exponents.counts) if n]
    return exponents.lowest + used[0], exponents.lowest + used[-1] + 1


def depth(share: float) -> int:
    """Returns how dark a cell is, 0 for empty to 4."""
    return sum(share >= edge for edge in SHARES) if share > 0 else 0


def _cells(shown: Sequence[ParameterPrecision], x: Linear) -> list[str]:
    """Returns one path for each darkness; neighbours of one are one piece."""
    pieces: dict[int, list[str]] = {}
    for i, one in enumerate(shown):
        total = max(one.exponents.total, 1)
        at = one.exponents.lowest
        shades = [depth(n / total) for n in one.exponents.counts]
        for dark, run in groupby(shades):
            end = at + sum(1 for _ in run)
            if dark:
                left, wide = 10 * x(at), svg.short(10 * (x(end) - x(at)))
                top, high = svg.short(i * ROW + 1), svg.short(ROW - 2)
                pieces.setdefault(dark, []).append(
                    f"M{svg.short(left)} {top}h{wide}v{high}h-{wide}z"
                )
            at = end
    return [
        svg.element("path", {"class": f"cell d-{dark}", "d": "".join(parts)})
        for dark, parts in sorted(pieces.items())
    ]


def _limits(x: Linear, height: float) -> str:
    marks = []
    for exponent, words in LIMITS:
        place = x(exponent)
        marks.append(svg.line((place, -4), (place, height), kind="limit-error"))
        marks.append(svg.label(words, place, -8, kind="limit-error words w"))
    return "".join(marks)


def _ticks(x: Linear, height: float) -> str:
    """Returns labels at powers of ten: 10⁻⁶ lies at the exponent −19.9."""
    two = math.log10(2.0)
    values = [v for v in round_values(x.low * two, x.high * two, 7) if v == round(v)]
    return "".join(
        svg.label(
            _power(value), x(value / two), height + 16, kind=kind, anchor="middle"
        )
        for value, kind in zip(values, cycle(("t", "t w")), strict=False)
    )


def _power(value: float) -> str:
    return f"1e{round(value)}".replace("-", "−")


def _grid(found: Sequence[ParameterPrecision]) -> Grid:
    columns = ("parameter", "#elements", "#float16: becomes 0", "#bfloat16: becomes 0")
    shown = tuple(_row(one) for one in found[:MOST_ROWS])
    left_out = len(found) - len(shown)
    note = f"{left_out:,} more: in the JSON report" if left_out else ""
    return Grid((*columns, "#loss scale that saves it"), shown, note)


def _row(one: ParameterPrecision) -> tuple[str, ...]:
    saves = "none" if one.loss_scale is None else f"{one.loss_scale:,.0f}"
    return (
        called(one.name),
        f"{one.elements:,}",
        percent(one.lost("float16")),
        percent(one.lost("bfloat16")),
        saves,
    )
