"""What a deep scan adds: attention by head, and the singular values of Jacobians."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vgaudit.flow import AttentionFlow, GradientFlow, JacobianFlow, StreamPoint
from vgaudit.reports.charts import frame, svg
from vgaudit.reports.charts.depth import shortened
from vgaudit.reports.charts.figure import Figure, Grid, called, figure
from vgaudit.reports.charts.lines import Panel, Series, chart, keys
from vgaudit.reports.charts.scale import Linear
from vgaudit.rules.wording import number, percent

MOST = 32
"""Calls of attention, and Jacobians, that are drawn."""

ROW = 18.0
UNIT = Linear(0.0, 1.0, 0.0, 100.0)
FLOOR = 1e-12
"""Singular values below this share of the largest are drawn there."""


def attention(flow: GradientFlow) -> Figure | None:
    """Returns the entropy of every head; None without measured attention."""
    calls = flow.deep.attention if flow.deep is not None else ()
    if not calls:
        return None
    shown = calls[:MOST]
    height = ROW * len(shown)
    marks = []
    for i, call in enumerate(shown):
        middle = (i + 0.5) * ROW
        marks.append(svg.line((0, middle), (100, middle), kind="grid"))
        marks.append(svg.outside(shortened(call.layer), -8, middle + 4))
        known = [value for value in call.entropy if math.isfinite(value)]
        marks.append(_heads(known, middle))
    words = "One row a call, one dot a head: 1 is even attention, 0 is one key alone."
    picture = svg.plot(
        height, "Entropy of attention", words, *marks, frame.upright(UNIT, height)
    )
    return Figure(
        name="attention",
        title="Attention",
        caption="Entropy of each head’s attention over log n, the most it can be. "
        + words,
        picture=svg.element("div", {"class": "heat"}, picture),
        grid=_attention_grid(calls),
    )


def _heads(values: Sequence[float], middle: float) -> str:
    return "".join(
        svg.element(
            "circle",
            {
                "class": "head",
                "cx": svg.percent(UNIT(value)),
                "cy": svg.short(middle),
                "r": 3.5,
            },
        )
        for value in values
    )


def _attention_grid(calls: Sequence[AttentionFlow]) -> Grid:
    columns = ("call", "#heads", "#keys", "#lowest entropy", "#mean", "#highest")
    rest = ("#collapsed queries", "#largest logit")
    shown = tuple(_attention_cells(call) for call in calls[: 2 * MOST])
    left_out = len(calls) - len(shown)
    note = f"{left_out:,} more calls: in the JSON report" if left_out else ""
    return Grid((*columns, *rest), shown, note)


def _attention_cells(call: AttentionFlow) -> tuple[str, ...]:
    heads = len(call.entropy)
    mean = sum(call.entropy) / heads if heads else None
    return (
        called(call.layer),
        f"{heads:,}",
        f"{call.keys:,}",
        figure(min(call.entropy, default=None)),
        figure(mean),
        figure(max(call.entropy, default=None)),
        percent(max(call.collapsed, default=0.0)),
        figure(max(call.largest_logit, default=None), 1),
    )


def stream(flow: GradientFlow) -> Figure | None:
    """Returns how much the forward signal varies along the trunk; None without it."""
    found = flow.deep.stream if flow.deep is not None else ()
    if len(found) < 2:
        return None
    places = tuple(float(i) for i in range(len(found)))
    lines = [Series("over samples", places, tuple(one.variation for one in found))]
    if any(one.tokens is not None for one in found):
        lines.append(Series("over tokens", places, tuple(one.tokens for one in found)))
    ends = ", ".join(f"{one.name} {_share(one.y[-1])}" for one in lines)
    panel = Panel(
        title="Variation of the forward signal",
        description=f"Along the trunk, input left. At the output: {ends}.",
        across="place on the trunk, from the input to the output",
        up="share",
        least=(0.0, 1.0),
    )
    return Figure(
        name="forward-signal",
        title="Forward signal",
        caption="What share of the signal differs between samples, and between the "
        "tokens of one sample. Near 0, all look alike to the layers above.",
        picture=chart(lines, panel),
        keys=keys(lines, [_share(one.y[-1]) for one in lines]),
        grid=_stream_grid(found),
    )


def _stream_grid(found: Sequence[StreamPoint]) -> Grid:
    rows = tuple(
        (
            called(one.layer),
            number(one.size),
            _share(one.variation),
            _share(one.tokens),
            figure(one.rank, 1),
        )
        for one in found[: 2 * MOST]
    )
    left_out = len(found) - len(rows)
    note = f"{left_out:,} more: in the JSON report" if left_out else ""
    columns = ("after", "#root mean square", "#over samples", "#over tokens")
    return Grid((*columns, "#directions"), rows, note)


def _share(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else percent(value)


def spectrum(flow: GradientFlow) -> Figure | None:
    """Returns the singular values of the Jacobians; None where none was measured."""
    found = flow.deep.jacobians if flow.deep is not None else ()
    if not found:
        return None
    curves = _curves([one for one in found if one.spectrum][:8])
    picture = chart(curves, _panel(curves)) if curves else _sizes(found[:MOST])
    caption = (
        "All singular values, from the largest to the smallest, in decades."
        if curves
        else "Decades of the largest singular value (bar) and of the root mean square "
        "(line) of the network’s Jacobian and of each block’s."
    )
    return Figure(
        name="singular-values",
        title="Singular values",
        caption=caption,
        picture=picture,
        keys=keys(curves) if len(curves) > 1 else (),
        grid=_jacobian_grid(found),
    )


def _curves(found: Sequence[JacobianFlow]) -> tuple[Series, ...]:
    """Returns log₁₀ of each spectrum against the share of the values passed."""
    curves = []
    for one in found:
        last = max(len(one.spectrum) - 1, 1)
        floor = max(one.spectrum[0] * FLOOR, 1e-300)
        curves.append(
            Series(
                called(one.layer) or "input to output",
                tuple(100.0 * i / last for i in range(len(one.spectrum))),
                tuple(_decades(max(value, floor)) for value in one.spectrum),
            )
        )
    return tuple(curves)


def _panel(curves: Sequence[Series]) -> Panel:
    return Panel(
        title="Singular values of the Jacobian",
        description=f"{len(curves)} falling curves of log₁₀ σ.",
        across="share of the singular values, %",
        up="decades",
        least=(-1.0, 0.2),
    )


def _sizes(found: Sequence[JacobianFlow]) -> str:
    """Returns a row for each Jacobian: its largest singular value and their size."""
    pairs = [(_decades(one.largest), _decades(_rms(one))) for one in found]
    known = [x for pair in pairs for x in pair if x is not None]
    x = Linear(min([-1.0, *known]), max([1.0, *known]), 0.0, 100.0)
    height, marks = ROW * len(found), []
    for i, (one, (largest, size)) in enumerate(zip(found, pairs, strict=True)):
        middle = (i + 0.5) * ROW
        marks.append(
            svg.outside(shortened(one.layer) or "input to output", -8, middle + 4)
        )
        if largest is not None:
            left, right = sorted((x(0.0), x(largest)))
            marks.append(
                svg.box(left, middle - 4, (right - left, 8), kind="body", tip="")
            )
        if size is not None:
            marks.append(
                svg.line((x(size), middle - 6), (x(size), middle + 6), kind="mean")
            )
    zero = svg.line((x(0.0), 0), (x(0.0), height), kind="zero")
    picture = svg.plot(
        height,
        "Singular values",
        "One row a Jacobian.",
        zero,
        *marks,
        frame.upright(x, height),
    )
    return svg.element("div", {"class": "heat"}, picture)


def _rms(one: JacobianFlow) -> float | None:
    return math.sqrt(one.mean_square) if one.mean_square >= 0 else None


def _decades(value: float | None) -> float | None:
    if value is None or not value > 0 or not math.isfinite(value):
        return None
    return math.log10(value)


def _jacobian_grid(found: Sequence[JacobianFlow]) -> Grid:
    columns = ("of", "#inputs", "#outputs", "#mean σ²", "#largest σ", "#condition")
    rows = tuple(
        (
            called(one.layer) or "input to output",
            f"{one.inputs:,}",
            f"{one.outputs:,}",
            number(one.mean_square),
            "–" if one.largest is None else number(one.largest),
            "–" if one.condition is None else number(one.condition),
        )
        for one in found[: 2 * MOST]
    )
    left_out = len(found) - len(rows)
    note = f"{left_out:,} more: in the JSON report" if left_out else ""
    return Grid(columns, rows, note)
