"""Findings as the page shows them: a first cause with what follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vgaudit.findings import Finding, Level
from vgaudit.plain import visible
from vgaudit.reports.moved import shifted
from vgaudit.reports.transport import line_of

IN_FULL = 3
"""Findings of one rule and level that are shown in full."""

MOST = 60
"""Findings shown in full, of all rules."""

MOST_LINES = 40
"""Lines of what follows from a finding, or is the same elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One finding in words, everything visible and none of it too long.

    ``label`` is its level, or how that changed: ``info → error``.
    """

    level: str
    label: str
    unclear: bool
    code: str
    name: str
    place: str
    at: str
    message: str
    evidence: tuple[str, ...]
    text: str
    reason: str
    command: str
    follows: tuple[Shown, ...] = ()
    same: tuple[Shown, ...] = ()


def grouped(findings: Sequence[Finding]) -> tuple[Shown, ...]:
    """Returns the first causes, with what follows from each below it.

    Of many findings of one rule and level, the fourth and further stand together.
    """
    known = {finding.fingerprint for finding in findings}
    below: dict[str, list[Finding]] = {}
    first: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        cause = finding.cause.fingerprint if finding.cause is not None else None
        if cause in known and cause is not None and cause != finding.fingerprint:
            below.setdefault(cause, []).append(finding)
        else:
            first.setdefault((finding.level, finding.code), []).append(finding)
    return tuple(x for group in first.values() for x in _group(group, below))[:MOST]


def _group(
    group: Sequence[Finding], below: dict[str, list[Finding]]
) -> Iterable[Shown]:
    whole = len(group) if len(group) <= IN_FULL + 1 else IN_FULL
    for i, finding in enumerate(group[:whole], start=1):
        rest = group[whole:] if i == whole else ()
        yield shown(finding, follows=below.get(finding.fingerprint, ()), same=rest)


def shown(
    finding: Finding,
    *,
    follows: Sequence[Finding] = (),
    same: Sequence[Finding] = (),
    before: Level | None = None,
) -> Shown:
    """Returns a finding in words; ``before`` is its level in an earlier report."""
    fix, level = finding.fix, finding.level
    return Shown(
        level=level,
        label=shifted(before, level) if before not in (None, level) else level,
        unclear=finding.unclear,
        code=finding.code,
        name=finding.name,
        place=visible(finding.layer) or "the model",
        at=line_of(finding.source) if finding.source is not None else "",
        message=visible(finding.message, length=600),
        evidence=tuple(visible(x, length=300) for x in finding.evidence[:12]),
        text=visible(fix.text, length=300) if fix is not None else "",
        reason=visible(fix.reason, length=300) if fix is not None else "",
        command=visible(fix.command, length=300) if fix is not None else "",
        follows=tuple(shown(x) for x in follows[:MOST_LINES]),
        same=tuple(shown(x) for x in same[:MOST_LINES]),
    )
