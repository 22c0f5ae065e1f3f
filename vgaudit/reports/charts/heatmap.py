"""The gradient of every layer in every epoch of a training run, as a heatmap."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from vgaudit.reports.charts import frame, svg
from vgaudit.reports.charts.depth import shortened
from vgaudit.reports.charts.figure import Figure, Grid, Key, called, figure
from vgaudit.reports.charts.scale import Linear
from vgaudit.retraining import Epoch, Run

T = TypeVar("T")

MOST_LAYERS = 48
MOST_EPOCHS = 60
EDGES = (-3.0, -2.0, -1.0, -0.3, 0.3, 1.0, 2.0, 3.0)
"""Decades relative to the epoch's median at which the colour changes."""

NONE = "h-n"
"""Class of a cell whose gradient is exactly zero."""


@dataclass(frozen=True, slots=True)
class Cells:
    """What is drawn: rows of layers, columns of epochs.

    Attributes:
        layers: names, nearest the output first (the top row).
        epochs: numbers.
        values: decades relative to the median, ``[layer][epoch]``; None is zero.
        sampled: how many layers there are in all.
    """

    layers: tuple[str, ...]
    epochs: tuple[int, ...]
    values: tuple[tuple[float | None, ...], ...]
    sampled: int


def cells(epochs: Sequence[Epoch]) -> Cells:
    """Returns the cells of the epochs that recorded a flow."""
    seen = [epoch for epoch in epochs if epoch.layers]
    shown = _spaced(seen, MOST_EPOCHS)
    names = list(dict.fromkeys(x.layer for epoch in seen for x in epoch.layers))
    kept = _spaced(names, MOST_LAYERS)[::-1]
    columns = [{x.layer: x.relative for x in epoch.layers} for epoch in shown]
    values = tuple(tuple(c.get(name, math.nan) for c in columns) for name in kept)
    return Cells(tuple(kept), tuple(e.number for e in shown), values, len(names))


def _spaced(items: Sequence[T], most: int) -> list[T]:
    """Returns at most so many items, evenly spaced, the first and last among them."""
    if len(items) <= most:
        return list(items)
    last = len(items) - 1
    return [items[round(i * last / (most - 1))] for i in range(most)]


def kind(value: float | None) -> str:
    """Returns the class of a cell's colour."""
    if value is None:
        return NONE
    if math.isnan(value):
        return ""
    return f"h-{sum(value >= edge for edge in EDGES)}"


def draw(run: Run) -> Figure | None:
    """Returns the heatmap of one run; None where no flow was recorded."""
    found = cells(run.epochs)
    if not found.layers:
        return None
    row = max(6.0, min(20.0, 320.0 / len(found.layers)))
    height = row * len(found.layers)
    picture = svg.plot(
        height,
        f"Gradient by layer and epoch: {called(run.name)}",
        "Rows are layers, the output’s at the top; columns are epochs.",
        svg.stretched(height, *_painted(found, row)),
        _layer_names(found, row),
        _epoch_names(found, height),
        frame.named("epoch", height),
    )
    return Figure(
        name="layer-epoch-heatmap",
        title=f"Layers over epochs: {called(run.name)}",
        caption="The gradient of each layer’s weight relative to the median layer of "
        "the epoch, in decades.",
        picture=svg.element("div", {"class": "heat"}, picture),
        keys=_keys(found),
        grid=_grid(found),
    )


def _painted(found: Cells, row: float) -> list[str]:
    """Returns one path for each colour: neighbours of one colour are one piece."""
    wide = 1000.0 / len(found.epochs)
    pieces: dict[str, list[str]] = {}
    for i, values in enumerate(found.values):
        for start, end, name in _stretches([kind(value) for value in values]):
            if name:
                x, length = svg.short(start * wide), svg.short((end - start) * wide)
                pieces.setdefault(name, []).append(
                    f"M{x} {svg.short(i * row)}h{length}v{svg.short(row)}h-{length}z"
                )
    return [
        svg.element("path", {"class": f"cell {name}", "d": "".join(parts)})
        for name, parts in sorted(pieces.items())
    ]


def _stretches(kinds: Sequence[str]) -> Iterable[tuple[int, int, str]]:
    start = 0
    for i in range(1, len(kinds) + 1):
        if i == len(kinds) or kinds[i] != kinds[start]:
            yield start, i, kinds[start]
            start = i


def _layer_names(found: Cells, row: float) -> str:
    step = max(1, math.ceil(13.0 / row))
    marks = [
        svg.outside(shortened(name), -8, (i + 0.5) * row + 4)
        for i, name in enumerate(found.layers)
        if i % step == 0
    ]
    return "".join(marks)


def _epoch_names(found: Cells, height: float) -> str:
    n = len(found.epochs)
    shown = {int(i) for i in Linear(0, n - 1, 0, n - 1).ticks(8)} if n > 1 else {0}
    return "".join(
        svg.label(
            str(found.epochs[i]),
            (i + 0.5) / n * 100,
            height + 16,
            kind="t",
            anchor="middle",
        )
        for i in sorted(shown)
        if i < n
    )


def _keys(found: Cells) -> tuple[Key, ...]:
    present = {kind(value) for values in found.values for value in values}
    words = [f"below {figure(EDGES[0], 1)}"]
    words += [f"{figure(a, 1)} to {figure(b, 1)}" for a, b in itertools.pairwise(EDGES)]
    words.append(f"above {figure(EDGES[-1], 1)}")
    keys = [Key(f"h-{i}", text) for i, text in enumerate(words) if f"h-{i}" in present]
    return (*keys, *([Key(NONE, "exactly zero")] if NONE in present else []))


def _grid(found: Cells) -> Grid:
    pick = [0, *([len(found.epochs) - 1] if len(found.epochs) > 1 else [])]
    heads = tuple(f"#epoch {found.epochs[i]}" for i in pick)
    rows = tuple(
        (called(name), *(_value(values[i]) for i in pick))
        for name, values in zip(found.layers, found.values, strict=True)
    )
    rest = found.sampled - len(found.layers)
    note = f"{rest:,} layers between these: in the JSON report" if rest else ""
    return Grid(("layer, output first", *heads), rows, note)


def _value(value: float | None) -> str:
    return (
        "exactly zero" if value is None else "–" if math.isnan(value) else figure(value)
    )
