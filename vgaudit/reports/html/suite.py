"""Several reports in one page: a table of verdicts, then each report."""

from __future__ import annotations

from dataclasses import dataclass

from vgaudit import __version__
from vgaudit.plain import visible
from vgaudit.reports.html import scan
from vgaudit.reports.verdict import headline
from vgaudit.rules.wording import count
from vgaudit.suite import Entry, Suite

WHOLE = 12
"""Reports that are shown whole, the failed ones first; the table has all."""


@dataclass(frozen=True, slots=True)
class Line:
    """One target in the table of verdicts."""

    name: str
    status: str
    headline: str
    errors: int
    warnings: int
    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that the template of several reports shows."""

    version: str = __version__
    target: str
    status: str
    headline: str
    lead: str
    lines: tuple[Line, ...]
    reports: tuple[tuple[str, scan.View], ...]
    left_out: str


def view(suite: Suite) -> View:
    """Returns what the page of several reports shows, the failed ones first."""
    worst = sorted(suite.entries, key=lambda entry: entry.report.exit_code == 0)
    failed = sum(entry.report.exit_code != 0 for entry in suite.entries)
    total = len(suite.entries)
    passed = f"{total - failed:,} of {count(total, 'target')}"
    return View(
        target=visible(suite.command, length=80),
        status=suite.status,
        headline=f"{passed} {'passes' if total - failed == 1 else 'pass'}.",
        lead=f"Exit code {suite.exit_code}, that of the worst.",
        lines=tuple(map(_line, suite.entries)),
        reports=tuple((visible(x.name), scan.view(x.report)) for x in worst[:WHOLE]),
        left_out=f"{total - WHOLE:,} more: in the JSON report" if total > WHOLE else "",
    )


def _line(entry: Entry) -> Line:
    report = entry.report
    return Line(
        visible(entry.name),
        report.status,
        headline(report),
        report.count("error"),
        report.count("warning"),
        report.exit_code,
    )
