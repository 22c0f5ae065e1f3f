"""Decision landscapes of two moons as SVG, drawn without any plotting library."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.papers.rai_study.methods import (
    FIRST_RIDGE,
    Rai,
    adam,
    backprop,
    rai,
    rai_recipe,
)
from benchmarks.papers.rai_study.problems import Problem, net, problem, score, shaped

LEFT, RIGHT, LOW, HIGH = -1.6, 2.6, -1.2, 1.7
COLUMNS, ROWS, CELL = 84, 58, 5


def draw_all(folder: Path) -> None:
    """The shallow ReLU net and the 101-layer sigmoid net, by RAI and by Adam."""
    folder.mkdir(parents=True, exist_ok=True)
    given = problem(0)
    nets = {
        "shallow-relu": (shaped(0, "relu", [42, 100, 42]), 1e-2),
        "deep-sigmoid": (
            net(0, "sigmoid", depth=101, width=100),
            FIRST_RIDGE["sigmoid"],
        ),
    }
    for name, (start, ridge) in nets.items():
        relaxed, ordinary = copy.deepcopy(start), copy.deepcopy(start)
        rai(relaxed, given, Rai(rai_recipe(ridge)))
        backprop(ordinary, given, adam(1e-3), steps=300)
        for method, model in (("rai", relaxed), ("adam", ordinary)):
            path = folder / f"rai-moons-{name}-{method}.svg"
            path.write_text(landscape(model, given), encoding="utf-8")
            print(path.name, score(model, given.test, given.loss), file=sys.stderr)


def landscape(model: nn.Module, given: Problem) -> str:
    """The probability of the second class, and the training points."""
    x = torch.linspace(LEFT, RIGHT, COLUMNS)
    y = torch.linspace(HIGH, LOW, ROWS)
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    with torch.no_grad():
        values = model(points).sigmoid().reshape(ROWS, COLUMNS)
    width, height = COLUMNS * CELL, ROWS * CELL
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'shape-rendering="crispEdges">'
    ]
    for row, line in enumerate(values):
        parts += runs(line, row)
    for (a, b), label in zip(given.train.args[0], given.train.labels, strict=True):
        across = (float(a) - LEFT) / (RIGHT - LEFT) * width
        down = (HIGH - float(b)) / (HIGH - LOW) * height
        colour = "#7a1f1f" if label > 0.5 else "#1f3a7a"
        parts.append(
            f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3.5" fill="{colour}" '
            'stroke="#fff"/>'
        )
    return "\n".join([*parts, "</svg>", ""])


def runs(line: Tensor, row: int) -> list[str]:
    """Cells of one row; neighbours of one shade are one rectangle."""
    shades = [min(10, int(10 * float(value) + 0.5)) for value in line]
    parts, start = [], 0
    for place in range(1, COLUMNS + 1):
        if place == COLUMNS or shades[place] != shades[start]:
            parts.append(
                f'<rect x="{start * CELL}" y="{row * CELL}" '
                f'width="{(place - start) * CELL}" height="{CELL}" '
                f'fill="{colour_of(shades[start])}"/>'
            )
            start = place
    return parts


def colour_of(shade: int) -> str:
    """Blue for the first class, red for the second, white between."""
    share = shade / 10
    if share < 0.5:
        faded = int(140 + 115 * 2 * share)
        return f"#{faded:02x}{faded:02x}ff"
    faded = int(255 - 115 * (2 * share - 1))
    return f"#ff{faded:02x}{faded:02x}"
