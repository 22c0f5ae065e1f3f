"""What the judgement says: findings, and the report that holds them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib import import_module
from typing import Literal

from vgaudit.flow import Audit, Source

Level = Literal["error", "warning", "info"]
Optimizer = Literal["sgd", "adam"]
Status = Literal["pass", "fail", "inconclusive", "error"]
FailOn = Literal["error", "warning", "info", "never"]

HTML = "vgaudit.reports.html"
"""What draws a report for a notebook; by name, since words import no other part."""

LEVELS: tuple[Level, ...] = ("error", "warning", "info")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """A way out: a command to run, what it does, and why it fits this finding."""

    command: str
    text: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Another finding of the same report.

    Attributes:
        fingerprint: which.
        code, name, layer: as in that finding.
    """

    fingerprint: str
    code: str
    name: str
    layer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One statement of one rule about one place.

    Attributes:
        code: ``VG101``. name: ``vanishing-gradient``.
        level: ``error``, ``warning`` or ``info``.
        layer: path of the layer, a range ``a … b``, or empty for the model.
        layers: every layer concerned, nearest the input first.
        message: one sentence with the figures.
        value, limit: what was measured and the threshold, in ``unit``.
        unit: ``decades``, ``share``, …
        unclear: the interval does not clear the threshold; level is ``info``.
        evidence: further sentences.
        fix: what to do, where a treatment is known.
        source: line of code, where known.
        cause: the finding from which this one follows, where there is one.
        consequences: the findings that follow from this one.
    """

    code: str
    name: str
    level: Level
    message: str
    layer: str = ""
    layers: tuple[str, ...] = ()
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    unclear: bool = False
    evidence: tuple[str, ...] = ()
    fix: Fix | None = None
    source: Source | None = None
    cause: Link | None = None
    consequences: tuple[Link, ...] = ()

    @property
    def link(self) -> Link:
        """How other findings refer to this one."""
        return Link(
            fingerprint=self.fingerprint,
            code=self.code,
            name=self.name,
            layer=self.layer,
        )

    @property
    def fingerprint(self) -> str:
        """Stable over runs: code and place, not figures."""
        place = f"{self.code}\0{self.layer}"
        return hashlib.sha256(place.encode("utf-8", "replace")).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppressed:
    """A finding that does not count, and why.

    Attributes:
        finding: as the rule stated it.
        by: ``baseline`` (known before) or ``ignore`` (the user's configuration).
        reason: of the ignore, or what is known of the finding.
    """

    finding: Finding
    by: Literal["baseline", "ignore"]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A judged audit: what every report format renders.

    ``audit`` is None when the run failed before anything was measured; then
    ``errors`` says why.
    """

    status: Status
    exit_code: int
    command: str
    audit: Audit | None = None
    findings: tuple[Finding, ...] = ()
    errors: tuple[dict[str, object], ...] = ()
    warnings: tuple[str, ...] = ()
    optimizer: Optimizer = "sgd"
    thresholds: dict[str, float] = field(default_factory=dict)
    suppressed: tuple[Suppressed, ...] = ()
    fail_on: FailOn = "error"

    def fails(self, finding: Finding) -> bool:
        """Tells whether a finding is bad enough to fail the gate."""
        if self.fail_on == "never":
            return False
        return LEVELS.index(finding.level) <= LEVELS.index(self.fail_on)

    def count(self, level: Level) -> int:
        """Returns how many findings have ``level``."""
        return sum(finding.level == level for finding in self.findings)

    def _repr_html_(self) -> str:
        """Shows the report in a notebook."""
        page: str = import_module(HTML).scanned(self).fragment()
        return page
