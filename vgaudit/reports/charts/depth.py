"""The axis that transport is drawn on: weight layers, input left, output right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from vgaudit.flow import GradientFlow, TrunkStep
from vgaudit.plain import visible
from vgaudit.reports.charts import svg

MAIN = ("weights", "recurrence", "attention", "branches")
"""What gives a station its name, the first that it has."""

WIDE, NARROW = 1000.0, 300.0
"""Pixels of a plot on a desk and on a telephone, for which labels are placed."""

LETTER = 6.6
"""Pixels of one letter of a label, rather more than less."""

BEFORE, BEHIND = 30.0, 6.0
"""Pixels that a label may stick out of the plot on its left and on its right."""

LABEL = 22
"""The longest label of an axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One weight layer of the trunk with what follows it, or several in a row.

    Attributes:
        first, last: name of the layer nearest the input, and nearest the output.
        near, far: weight layers between its output side, its input side, and the
            network's output.
        start: decades at its output side, where the gradient comes in.
        end: decades at its input side. lo, hi: its 95 % interval.
        steps: the steps of the trunk in it, nearest the input first.
    """

    first: str
    last: str
    near: int
    far: int
    start: float
    end: float
    lo: float
    hi: float
    steps: tuple[TrunkStep, ...]

    @property
    def name(self) -> str:
        """Its layers in words."""
        return self.first if self.first == self.last else f"{self.first} … {self.last}"

    @property
    def gain(self) -> float:
        """Decades from its output side to its input side."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Depth:
    """Places along the axis, in percent of its width."""

    layers: int

    def __call__(self, depth: float) -> float:
        """Returns the place at which ``depth`` weight layers are still to come."""
        return 100.0 * (1.0 - depth / self.layers)


def axis(flow: GradientFlow) -> Depth:
    """Returns the axis of a flow: one unit for each weight layer."""
    deepest = max((step.depth for step in flow.trunk), default=0)
    known = max((x.depth for x in flow.layers if x.depth is not None), default=0)
    return Depth(max(flow.weight_layers, deepest + 1, known + 1))


def stations(flow: GradientFlow, *, most: int) -> tuple[Station, ...]:
    """Returns the trunk in at most ``most`` stations, nearest the input first."""
    ends = (*(step.attenuation.value for step in flow.trunk[1:]), 0.0)
    pairs = list(zip(flow.trunk, ends, strict=False))
    total = axis(flow).layers
    width = max(1, math.ceil(total / most))
    groups = [list(run) for _, run in groupby(pairs, lambda p: p[0].depth // width)]
    heads = {x.depth: x.path for x in flow.layers if x.weighted and x.trunk}
    found: list[Station] = []
    far = total
    for group in groups:
        near = group[-1][0].depth
        steps = [step for step, _ in group]
        found.append(_station(steps, group[-1][1], reach=(near, far), heads=heads))
        far = near
    return tuple(found)


def _station(
    steps: Sequence[TrunkStep],
    start: float,
    *,
    reach: tuple[int, int],
    heads: Mapping[int | None, str],
) -> Station:
    runs = groupby(steps, lambda step: step.depth)
    names = [_name(list(run), heads.get(depth)) for depth, run in runs]
    end = steps[0].attenuation
    return Station(
        first=names[0],
        last=names[-1],
        near=reach[0],
        far=reach[1],
        start=start,
        end=end.value,
        lo=end.lo,
        hi=end.hi,
        steps=tuple(steps),
    )


def _name(steps: Sequence[TrunkStep], head: str | None) -> str:
    """Returns the name of what the steps of one depth belong to.

    Args:
        steps: of one depth.
        head: the weight layer of the trunk at that depth. Nothing passes through
            the weights of the last one, but what follows it is named after it.
    """
    for cause in MAIN:
        named = next((step for step in steps if step.cause == cause), None)
        if named is not None:
            return named.layer or named.name
    return head or steps[0].layer or steps[0].name


def nodes(flow: GradientFlow) -> tuple[tuple[float, TrunkStep], ...]:
    """Returns each trunk step with the place of its input side, input first.

    Steps of one station share its width evenly.
    """
    at = axis(flow)
    found: list[tuple[float, TrunkStep]] = []
    far = float(at.layers)
    for depth, run in groupby(flow.trunk, lambda step: step.depth):
        steps = list(run)
        wide = (far - depth) / len(steps)
        found += [(at(far - wide * i), step) for i, step in enumerate(steps)]
        far = float(depth)
    return tuple(found)


def spoken(path: str) -> str:
    """Returns a layer's name as a sentence can hold it: ``0`` is ``layer 0``."""
    return f"layer {path}" if path and not any(map(str.isalpha, path)) else path


def shortened(name: str, length: int = LABEL) -> str:
    """Returns the end of a name, which tells layers apart, as an axis shows it.

    Whole components go first, as long as what is left tells layers apart: it has two
    components or a number.
    """
    shown = rest = visible(name)
    while len(rest) > length and "." in rest:
        rest = rest.partition(".")[2]
    telling = "." in rest or any(letter.isdigit() for letter in rest)
    if len(rest) <= length and (telling or rest == shown):
        return rest
    return f"…{shown[1 - length :]}"


def labels(names: Sequence[str], places: Sequence[float], y: float) -> str:
    """Returns labels below an axis: all that fit, fewer on a narrow page.

    The first and the last are always there; those for wide pages alone have the
    class ``w``.

    Args:
        names: what stands at each place, left to right.
        places: percent of the width, rising.
        y: pixels.
    """
    shown = [shortened(name) for name in names]
    few = set(_fitting(shown, places, NARROW, set()))
    many = sorted(_fitting(shown, places, WIDE, few))
    marks = []
    for i in many:
        kind, width = ("t", NARROW) if i in few else ("t w", WIDE)
        anchor = _anchor(places[i], len(shown[i]), width)
        marks.append(svg.label(shown[i], places[i], y, kind=kind, anchor=anchor))
    return "".join(marks)


def _anchor(place: float, letters: int, width: float) -> str:
    """Returns how a label is set so that it does not stick out of the page."""
    at, half = place / 100 * width, letters * LETTER / 2
    if half > at + BEFORE:
        return "start"
    return "end" if half > width - at + BEHIND else "middle"


def _fitting(
    names: Sequence[str], places: Sequence[float], width: float, taken: set[int]
) -> Iterator[int]:
    """Yields the labels that fit beside each other, the ends first."""
    spans: list[tuple[float, float]] = []
    last = len(names) - 1
    for i in dict.fromkeys([*sorted(taken), 0, last, *range(len(names))]):
        if i < 0 or not names:
            continue
        at, wide = places[i] / 100 * width, len(names[i]) * LETTER
        anchor = _anchor(places[i], len(names[i]), NARROW if i in taken else width)
        left = at - wide * {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
        span = (left - 4, left + wide + 4)
        if i in taken or all(span[1] <= a or span[0] >= b for a, b in spans):
            spans.append(span)
            yield i
