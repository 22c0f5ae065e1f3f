"""Annotations of GitHub Actions: the worst nine findings, then a count.

A step shows ten annotations of a kind. Messages and properties are percent-escaped:
<https://docs.github.com/actions/reference/workflow-commands-for-github-actions>.
"""

from __future__ import annotations

from collections.abc import Iterator

from vgaudit.findings import LEVELS, Finding, Report
from vgaudit.flow import Audit
from vgaudit.plain import visible
from vgaudit.reports.escaping import github_message, github_property
from vgaudit.reports.place import place
from vgaudit.reports.verdict import headline
from vgaudit.rules.wording import count
from vgaudit.suite import Entry, Suite, single

MOST = 9
_COMMANDS = {"error": "error", "warning": "warning", "info": "notice"}


def render(report: Report) -> str:
    """Returns the report as workflow commands, one a line."""
    return render_suite(single(report))


def render_suite(suite: Suite) -> str:
    """Returns the reports as workflow commands, the worst findings of all first."""
    found = [
        (finding, entry) for entry in suite.entries for finding in entry.report.findings
    ]
    found.sort(key=lambda pair: LEVELS.index(pair[0].level))
    lines = [_annotation(finding, entry) for finding, entry in found[:MOST]]
    return "\n".join([*lines, _closing(suite, len(found) - MOST)]) + "\n"


def _annotation(finding: Finding, entry: Entry) -> str:
    where = ",".join(_properties(finding, entry.report.audit))
    layer = f"{visible(finding.layer)}: " if finding.layer else ""
    hint = f" Try: {finding.fix.text}" if finding.fix is not None else ""
    words = github_message(f"{visible(entry.name)}: {layer}{finding.message}.{hint}")
    return f"::{_COMMANDS[finding.level]} {where}::{words}"


def _properties(finding: Finding, audit: Audit | None) -> Iterator[str]:
    at = place(finding, audit)
    yield f"file={github_property(at.file, length=500)}"
    yield f"line={at.line}"
    yield f"title={github_property(f'{finding.code} {finding.name}')}"


def _closing(suite: Suite, more: int) -> str:
    command = "notice" if suite.exit_code == 0 else "error"
    verdicts = [
        f"{entry.report.status.upper()} {visible(entry.name)}: {headline(entry.report)}"
        for entry in suite.entries[:MOST]
    ]
    if more > 0:
        verdicts.append(f"{count(more, 'more finding')} not shown here")
    words = github_message("; ".join(verdicts), length=3000)
    return f"::{command} title=vgaudit::{words}"
