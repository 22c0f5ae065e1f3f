"""What a user agreed to: ignores, budgets, and what is known from a baseline."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase

from vgaudit.findings import Finding, Level
from vgaudit.flow import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignore:
    """Findings that somebody decided to live with, why, and for how long.

    Attributes:
        rules: codes, starts of codes, or slugs.
        layers: globs on the paths of layers; none is every place, the model too.
        reason: in the user's words.
        expires: the last day on which it holds; None for ever.
        targets: globs on the names of targets; none is every target.
    """

    rules: tuple[str, ...]
    reason: str
    layers: tuple[str, ...] = ()
    expires: date | None = None
    targets: tuple[str, ...] = ()

    def covers(self, finding: Finding) -> bool:
        """Tells whether the ignore is about a finding, at every place of it."""
        named = any(
            finding.name == rule.lower() or finding.code.startswith(rule.upper())
            for rule in self.rules
        )
        return named and (not self.layers or self._covers(finding.layers))

    def about(self, target: str) -> bool:
        """Tells whether the ignore is about a target."""
        return not self.targets or any(fnmatchcase(target, x) for x in self.targets)

    def expired(self, today: date) -> bool:
        """Tells whether its last day is over."""
        return self.expires is not None and self.expires < today

    def _covers(self, layers: tuple[str, ...]) -> bool:
        return bool(layers) and all(
            any(fnmatchcase(layer, glob) for glob in self.layers) for layer in layers
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A limit of the user's own on a figure of the whole model.

    Attributes:
        metric: a name in ``vgaudit.rules.gate.metrics.METRICS``.
        limit: the last value that is within the budget.
        level: of the finding where it is not.
    """

    metric: str
    limit: float
    level: Level = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What must be the same for the figures of two reports to be comparable."""

    architecture: str
    optimizer: str
    probe: str
    loss: str
    mode: str
    data: str
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The stored state of one target: its findings and figures.

    Attributes:
        measurement: how it was measured.
        findings: code, name, level, place and message of each.
        metrics: figures by the name of the metric.
        layers: attenuation at each weight layer, in decades, by path.
    """

    measurement: Measurement
    findings: tuple[Finding, ...] = ()
    metrics: dict[str, Interval] = field(default_factory=dict)
    layers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """All that one report is held to, beside the rules.

    Attributes:
        today: the day that ignores expire by.
        ignores: those about this target.
        stale: those whose staleness this report has to state.
        budgets: limits on figures.
        known: the baseline; None without one.
    """

    today: date
    ignores: tuple[Ignore, ...] = ()
    stale: tuple[Ignore, ...] = ()
    budgets: tuple[Budget, ...] = ()
    known: Known | None = None
