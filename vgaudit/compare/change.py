"""What changed from one report to another: findings, figures and scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from vgaudit.compare.figures import Figures, figures
from vgaudit.compare.sides import Gain, Known, differences, gain, scores, side
from vgaudit.findings import LEVELS, Finding, Level, Optimizer, Report

Verdict = Literal["better", "same", "worse", "mixed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What changed between two reports.

    Attributes:
        before, after: the figures of each.
        gone, new, kept: findings by what became of them; ``kept`` as they are after.
        kept_from: the level that each of ``kept`` had before; empty in reports of
            versions that did not record it.
        verdict: by errors that are gone and new, then by warnings. A kept finding
            that rose counts as new at its level, one that fell as gone at the old.
        healthy: the first scan found nothing to treat.
        optimizer, thresholds: what the second report was judged by.
        gain: how the scores moved; None where the sides have nothing in common.
        notes: where the sides differ beside their findings, one sentence each: another
            architecture, other data.
    """

    before: Figures
    after: Figures
    gone: tuple[Finding, ...]
    new: tuple[Finding, ...]
    kept: tuple[Finding, ...]
    verdict: Verdict
    healthy: bool
    optimizer: Optimizer = "sgd"
    thresholds: dict[str, float] = field(default_factory=dict)
    kept_from: tuple[Level, ...] = ()
    gain: Gain | None = None
    notes: tuple[str, ...] = ()

    @property
    def risen(self) -> tuple[tuple[Level, Finding], ...]:
        """Kept findings that are graver than they were, after the level before."""
        return tuple((a, f) for a, f in self._levels() if _rank(f.level) < _rank(a))

    @property
    def fallen(self) -> tuple[tuple[Level, Finding], ...]:
        """Kept findings that are milder than they were, after the level before."""
        return tuple((a, f) for a, f in self._levels() if _rank(f.level) > _rank(a))

    @property
    def steady(self) -> tuple[Finding, ...]:
        """Kept findings that are of the level they were."""
        moved = {id(f) for _, f in (*self.risen, *self.fallen)}
        return tuple(f for f in self.kept if id(f) not in moved)

    def _levels(self) -> Iterator[tuple[Level, Finding]]:
        return zip(self.kept_from, self.kept, strict=False)

    def _repr_html_(self) -> str:
        """Shows the comparison in a notebook."""
        from vgaudit.reports.html import compared

        return compared(self).fragment()


def compare(
    before: Report, after: Report, *, known: tuple[Known, Known] = (Known(), Known())
) -> Comparison:
    """Returns what changed from one report to another.

    Args:
        before: a report.
        after: a later one, or that of another model.
        known: what is known of each beside the report.
    """
    sides = side(before, known[0].name), side(after, known[1].name)
    judged = scores((before, after), known)
    matched = list(pairs(before.findings, after.findings))
    old = {id(a) for a, _ in matched}
    was = {id(b): a.level for a, b in matched}
    gone = tuple(f for f in before.findings if id(f) not in old)
    new = tuple(f for f in after.findings if id(f) not in was)
    kept = tuple(f for f in after.findings if id(f) in was)
    moved = [(was[id(f)], f.level) for f in kept]
    better = [a for a, b in moved if _rank(b) > _rank(a)]
    worse = [b for a, b in moved if _rank(b) < _rank(a)]
    return Comparison(
        before=replace(figures(before), side=sides[0], score=judged[0]),
        after=replace(figures(after), side=sides[1], score=judged[1]),
        gone=gone,
        new=new,
        kept=kept,
        verdict=_verdict(
            [*(f.level for f in gone), *better], [*(f.level for f in new), *worse]
        ),
        healthy=before.status == "pass"
        and not any(f.level != "info" for f in before.findings),
        optimizer=after.optimizer,
        thresholds=after.thresholds,
        kept_from=tuple(a for a, _ in moved),
        gain=gain(*judged),
        notes=differences(sides, judged, known),
    )


def pairs(
    before: Sequence[Finding], after: Sequence[Finding]
) -> Iterator[tuple[Finding, Finding]]:
    """Yields findings of the same defect at the same place, or at one that overlaps.

    A range of layers may grow or shrink, and is the same finding all the same.
    """
    left = list(after)
    rest = []
    for finding in before:
        same = next((f for f in left if f.fingerprint == finding.fingerprint), None)
        if same is None:
            rest.append(finding)
            continue
        left.remove(same)
        yield finding, same
    for finding in rest:
        places = set(finding.layers)
        near = next(
            (f for f in left if f.code == finding.code and places & set(f.layers)), None
        )
        if near is not None:
            left.remove(near)
            yield finding, near


def _rank(level: Level) -> int:
    """Returns 0 for the gravest level."""
    return LEVELS.index(level)


def _verdict(lost: Sequence[Level], won: Sequence[Level]) -> Verdict:
    """Returns the verdict by errors; by warnings where no error came or went.

    Args:
        lost: levels of what the first report had and the second has not.
        won: levels of what came with the second.
    """
    for levels in (("error",), ("error", "warning")):
        fewer = any(level in levels for level in lost)
        more = any(level in levels for level in won)
        if fewer and more:
            return "mixed"
        if fewer or more:
            return "better" if fewer else "worse"
    return "same"
