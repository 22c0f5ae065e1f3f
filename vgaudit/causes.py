"""First causes: which finding of a report follows from which.

A saturated layer that starves ten layers below is one defect with consequences, not
eleven. What follows from what is a table of codes, each with what must hold of the two
places; the figures of the budget decide where a place alone does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vgaudit.findings import LEVELS, Finding
from vgaudit.flow import GradientFlow

MOST = 0.5
"""Share of what the gradient loses that a cause must account for."""

DEAD = 0.95
"""Share of units or values without slope from which nothing passes a layer."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where layers lie in the forward pass, and what the gradient loses in each.

    Attributes:
        order: path → position.
        gains: path → decades across it, where negative.
    """

    order: dict[str, int]
    gains: dict[str, float]

    def first(self, finding: Finding) -> int:
        """Returns the position of the first layer concerned; −1 where unknown."""
        known = [self.order[path] for path in finding.layers if path in self.order]
        return min(known, default=-1)


Holds = Callable[[Finding, Finding, Places], bool]


def _anywhere(cause: Finding, effect: Finding, places: Places) -> bool:
    return True


def _above(cause: Finding, effect: Finding, places: Places) -> bool:
    """The cause lies nearer the output, where the gradient passes first."""
    return places.first(cause) >= places.first(effect)


def _blocks(cause: Finding, effect: Finding, places: Places) -> bool:
    """The cause lies nearer the output, and nearly nothing passes it."""
    passes_none = cause.value is not None and cause.value >= DEAD
    return passes_none and _above(cause, effect, places)


def _before(cause: Finding, effect: Finding, places: Places) -> bool:
    """The cause lies nearer the input, where the signal passes first."""
    return places.first(cause) <= places.first(effect)


def _loses(cause: Finding, effect: Finding, places: Places) -> bool:
    """The layers of the cause lose part of the gradient that the effect misses."""
    lost = any(path in places.gains for path in cause.layers)
    return lost and _above(cause, effect, places)


def _inside(cause: Finding, effect: Finding, places: Places) -> bool:
    """The effect concerns the module of the cause, or a part of it."""
    module = cause.layers[0].partition(" ")[0] if cause.layers else ""
    paths = [path.partition(" ")[0] for path in effect.layers]
    return any(path == module or path.startswith(f"{module}.") for path in paths)


# Effect → causes, the first one that holds counts. No chain of these leads back.
FOLLOWS: dict[str, tuple[tuple[str, Holds], ...]] = {
    "VG101": (("VG001", _anywhere), ("VG108", _inside), ("VG301", _loses)),
    "VG102": (("VG001", _anywhere), ("VG301", _loses)),
    "VG103": (("VG001", _anywhere), ("VG302", _blocks), ("VG301", _blocks)),
    "VG105": (("VG201", _anywhere), ("VG108", _inside), ("VG301", _loses)),
    "VG107": (("VG001", _anywhere), ("VG201", _anywhere), ("VG203", _anywhere)),
    "VG108": (("VG301", _inside),),
    "VG202": (("VG201", _anywhere), ("VG204", _anywhere)),
    "VG203": (("VG001", _anywhere), ("VG503", _anywhere)),
    "VG301": (("VG001", _anywhere), ("VG503", _before), ("VG203", _before)),
    "VG302": (("VG001", _anywhere), ("VG503", _before)),
}


def grouped(findings: Sequence[Finding], flow: GradientFlow) -> tuple[Finding, ...]:
    """Returns the findings, each with its first cause and its consequences.

    Order, levels and fingerprints stay as they are.
    """
    places = _places(flow)
    roots = [_root(finding, findings, places) for finding in findings]
    found = []
    for finding, root in zip(findings, roots, strict=True):
        links = [
            other.link
            for other, above in zip(findings, roots, strict=True)
            if above is finding
        ]
        cause = None if root is None else root.link
        found.append(replace(finding, cause=cause, consequences=tuple(links)))
    return tuple(found)


def _root(
    finding: Finding, findings: Sequence[Finding], places: Places
) -> Finding | None:
    """Returns the finding at the start of the chain that leads to one; None if none."""
    root = None
    cause = _cause(finding, findings, places)
    while cause is not None:
        root, cause = cause, _cause(cause, findings, places)
    return root


def _cause(
    effect: Finding, findings: Sequence[Finding], places: Places
) -> Finding | None:
    for code, holds in FOLLOWS.get(effect.code, ()):
        able = [
            other
            for other in findings
            if other.code == code
            and other.level != "info"
            and holds(other, effect, places)
        ]
        if holds is _loses and not _most(able, places):
            continue
        if able:
            return min(able, key=lambda other: _rank(other, places))
    return None


def _most(causes: Sequence[Finding], places: Places) -> bool:
    """Tells whether causes together account for most of what is lost."""
    paths = {path for cause in causes for path in cause.layers}
    lost = sum(places.gains.get(path, 0.0) for path in paths)
    return lost < 0 and lost <= MOST * sum(places.gains.values())


def _rank(finding: Finding, places: Places) -> tuple[int, float]:
    """Orders causes: the worse level first, then the one that loses most."""
    lost = sum(places.gains.get(path, 0.0) for path in finding.layers)
    return LEVELS.index(finding.level), lost


def _places(flow: GradientFlow) -> Places:
    order: dict[str, int] = {}
    for layer in flow.layers:
        order.setdefault(layer.path, layer.order)
    gains: dict[str, float] = {}
    for step in (*flow.trunk, *(s for b in flow.branches for s in b.steps)):
        if step.layer is not None and step.gain.value < 0:
            gains[step.layer] = gains.get(step.layer, 0.0) + step.gain.value
    return Places(order, gains)
