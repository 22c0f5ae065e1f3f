"""Two reports side by side: what is gone, what is new, and how figures moved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from vgaudit.findings import LEVELS, Finding, Level, Optimizer, Report, Status
from vgaudit.flow import GradientFlow

Verdict = Literal["better", "same", "worse", "mixed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of one scan that a comparison is about.

    Attributes:
        status: of the report.
        attenuation: trunk attenuation in decades; None where there is none.
        spread: decades between the largest and the smallest gradient at the
            outputs of weight layers (max/min over layers); infinite where one is 0.
        saturated: the largest share of saturated elements of any activation that
            can saturate, and of the state of any plain recurrent layer; gates aside,
            None without one.
        saturated_gate: the same of gates, those of LSTMs and GRUs among them.
        variation: standard deviation of the output over samples, relative to its
            size; near 0 the forward signal has collapsed.
        errors, warnings: number of findings.
    """

    status: Status
    attenuation: float | None
    spread: float | None
    saturated: float | None
    variation: float | None
    errors: int
    warnings: int
    saturated_gate: float | None = None


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


def compare(before: Report, after: Report) -> Comparison:
    """Returns what changed from one report to another."""
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
        before=figures(before),
        after=figures(after),
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


def figures(report: Report) -> Figures:
    """Returns the figures of a report that a comparison shows."""
    flow = report.audit.flow if report.audit is not None else None
    attenuation = flow.attenuation if flow is not None else None
    return Figures(
        status=report.status,
        attenuation=attenuation.value if attenuation is not None else None,
        spread=_spread(flow) if flow is not None else None,
        saturated=_saturated(flow, gates=False) if flow is not None else None,
        saturated_gate=_saturated(flow, gates=True) if flow is not None else None,
        variation=flow.output_variation if flow is not None else None,
        errors=report.count("error"),
        warnings=report.count("warning"),
    )


def _spread(flow: GradientFlow) -> float | None:
    layers = [layer for layer in flow.layers if layer.weighted]
    if any(layer.zero_gradient for layer in layers):
        return math.inf
    values = [
        layer.attenuation.value for layer in layers if layer.attenuation is not None
    ]
    return max(values) - min(values) if len(values) > 1 else None


def _saturated(flow: GradientFlow, *, gates: bool) -> float | None:
    """Returns the largest share of saturated elements, of gates or of the others.

    What is a gate, and what can saturate, is as VG301 judges it: the state of a plain
    recurrent layer is an activation.
    """
    shares = [
        layer.activation.saturated
        for layer in flow.layers
        if layer.activation is not None
        and layer.activation.bounded
        and layer.activation.gate == gates
    ]
    shares += [
        gate.saturated
        for cell in flow.recurrences
        for gate in cell.gates
        if gate.kind != "relu" and (gate.name != "state") == gates
    ]
    return max(shares, default=None)


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
