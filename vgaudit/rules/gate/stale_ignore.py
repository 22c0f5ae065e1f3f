"""VG903: an ignore that has expired, or that nothing needs any more."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding, Report, Suppressed
from vgaudit.plain import visible
from vgaudit.rules.examples import chain
from vgaudit.rules.rule import GateExample, GateRule
from vgaudit.rules.wording import names
from vgaudit.terms import Ignore, Terms

_DAY = datetime.date(2026, 6, 1)
_DEAD = Finding(
    code="VG302",
    name="dead-units",
    level="error",
    message="dead",
    layer="layers.1",
    layers=("layers.1",),
)
_QUIET_REPORT = Report(status="pass", exit_code=0, command="", audit=chain())
_IGNORING = Report(
    status="pass",
    exit_code=0,
    command="",
    audit=chain(),
    suppressed=(Suppressed(finding=_DEAD, by="ignore", reason="known"),),
)


def _held(expires: datetime.date | None) -> Terms:
    entry = Ignore(rules=("VG302",), reason="known", expires=expires)
    return Terms(today=_DAY, ignores=(entry,), stale=(entry,))


@dataclass(frozen=True, slots=True)
class StaleIgnore(GateRule):
    """An ignore in the configuration has expired, or is not needed any more.

    What it measures:
        The entries of ``[[tool.vgaudit.ignores]]``: one whose day is over ignores
        nothing from the next day on; one that covers no finding of any target that
        was measured is unused.

    Why it matters:
        An ignore that outlives its reason hides the next defect at the same place.

    False alarms:
        A finding near its limit, that is there on one machine and not on the other.

    Treatments:
        Remove the entry; or look at the finding again and give it a new day.

    References:
        “Unused suppression” findings of Ruff (RUF100) and mypy
        (``warn_unused_ignores``).
    """

    code: ClassVar[str] = "VG903"
    name: ClassVar[str] = "stale-ignore"
    FIRES: ClassVar[tuple[GateExample, ...]] = (
        GateExample(
            "expired yesterday",
            _QUIET_REPORT,
            _held(datetime.date(2026, 5, 31)),
            "warning",
        ),
        GateExample("covers nothing", _QUIET_REPORT, _held(None), "warning"),
    )
    QUIET: ClassVar[tuple[GateExample, ...]] = (
        GateExample("in use", _IGNORING, _held(None)),
        GateExample("in use on its last day", _IGNORING, _held(_DAY)),
        GateExample("no ignores", _QUIET_REPORT, Terms(today=_DAY)),
        GateExample(
            "a run that failed",
            Report(status="error", exit_code=3, command=""),
            _held(None),
        ),
    )

    def decide(self, report: Report, terms: Terms) -> Iterator[Finding]:
        """Yields one finding for each stale ignore."""
        if report.audit is None:
            return
        covered = [x.finding for x in report.suppressed if x.by == "ignore"]
        for entry in terms.stale:
            if entry.expires is not None and entry.expired(terms.today):
                day = entry.expires.isoformat()
                why = f"it has ignored nothing since {day}"
                yield self._finding(entry, f"expired on {day}", why)
            elif not any(entry.covers(finding) for finding in covered):
                why = "0 findings need it, and it would hide the next one there"
                yield self._finding(entry, "covers no finding any more", why)

    def _finding(self, entry: Ignore, what: str, why: str) -> Finding:
        where = f" at {names(entry.layers)}" if entry.layers else ""
        rules = names(entry.rules)
        return Finding(
            code=self.code,
            name=self.name,
            level="warning",
            message=f"the ignore of {rules}{where} {what}: {visible(entry.reason)}",
            layer=f"ignore of {rules}{where}",
            fix=self.advice(
                "remove it from the configuration, or give it a new day", why
            ),
        )
