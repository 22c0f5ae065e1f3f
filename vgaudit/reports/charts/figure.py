"""A picture with its words: title, caption, keys of its colours, and its table."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from vgaudit.plain import visible
from vgaudit.rules.wording import number

NAME = 72
"""The longest name that a table or the tip of a mark shows."""


@dataclass(frozen=True, slots=True)
class Key:
    """What one colour or line of a chart stands for, with its figure if it has one."""

    kind: str
    name: str
    figure: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: names of the columns, cells in words, and how many rows are left out.

    Attributes:
        columns: headings; one that starts with ``#`` holds figures.
        rows: cells in words.
        left_out: rows that are not shown, with where they are, or empty.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left_out: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart as it stands in a report.

    Attributes:
        name: identifies it in the page, and names its file.
        title: two to five words.
        caption: what to see in it, in one or two sentences.
        picture: trusted markup, made by this package alone.
        keys: its legend.
        grid: its table.
    """

    name: str
    title: str
    caption: str
    picture: str
    grid: Grid
    keys: tuple[Key, ...] = field(default=())


def figure(value: float | None, digits: int = 2) -> str:
    """Returns a figure with a fixed number of decimals: ``−8.57``, ``−∞``, ``–``."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    rounded = f"{value:,.{digits}f}"
    zero = not rounded.strip("-0.,")
    return rounded.lstrip("-") if zero else rounded.replace("-", "−")


def tick(value: float) -> str:
    """Returns a tick's label: ``−4``, ``0.5``, ``1e6``."""
    if value and not 1e-4 <= abs(value) < 1e5:
        return number(value)
    return f"{value:g}".replace("-", "−")


def called(name: str) -> str:
    """Returns a name out of a model as a table shows it."""
    return visible(name, length=NAME)
