"""SARIF 2.1.0, for code scanning: a run for each target, a result for each finding.

Findings that are ignored or known from the baseline are results with a suppression.
Fingerprints are of code and place, so a result stays the same when figures move.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from vgaudit import __version__
from vgaudit.explain import page, summary
from vgaudit.findings import Finding, Report, Suppressed
from vgaudit.plain import to_plain, visible
from vgaudit.reports.escaping import inert_json, reference
from vgaudit.reports.place import place
from vgaudit.reports.verdict import headline
from vgaudit.rules.selection import PAGES
from vgaudit.suite import Entry, Suite, single

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
MOST = 5000
"""Results of one run; GitHub takes 25,000 and shows 5,000."""

_LEVELS = {"error": "error", "warning": "warning", "info": "note"}
Record = dict[str, Any]


def render(report: Report) -> str:
    """Returns the report as a SARIF log of one run."""
    return render_suite(single(report))


def render_suite(suite: Suite) -> str:
    """Returns the reports as a SARIF log, a run each."""
    log = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [_run(entry) for entry in suite.entries],
    }
    return inert_json(json.dumps(to_plain(log), allow_nan=False, indent=1)) + "\n"


def _run(entry: Entry) -> Record:
    report = entry.report
    hidden: list[tuple[Finding, Suppressed | None]] = [
        (x.finding, x) for x in report.suppressed
    ]
    found = [*((f, None) for f in report.findings), *hidden][:MOST]
    codes = sorted({finding.code for finding, _ in found})
    return {
        "tool": {
            "driver": {
                "name": "vgaudit",
                "semanticVersion": __version__,
                "version": __version__,
                "rules": [_rule(code) for code in codes],
            }
        },
        "automationDetails": {"id": f"vgaudit/{visible(entry.name)}/"},
        "invocations": [_invocation(report)],
        "columnKind": "unicodeCodePoints",
        "results": [
            _result(finding, why, report, codes.index(finding.code))
            for finding, why in found
        ],
    }


def _rule(code: str) -> Record:
    rule = next((x for x in PAGES if x.code == code), None)
    if rule is None:
        return {"id": visible(code)}
    return {
        "id": rule.code,
        "name": type(rule).__name__,
        "shortDescription": {"text": summary(rule)},
        "help": {"text": page(rule)},
    }


def _invocation(report: Report) -> Record:
    return {
        "executionSuccessful": report.status in ("pass", "fail"),
        "exitCode": report.exit_code,
        "exitCodeDescription": headline(report),
        "commandLine": visible(report.command, length=1000),
        "toolExecutionNotifications": list(_notifications(report)),
    }


def _notifications(report: Report) -> Iterator[Record]:
    for error in report.errors:
        text = f"{error.get('message', '')}. {error.get('hint', '')}"
        yield {"level": "error", "message": {"text": visible(text, length=1000)}}
    for warning in report.warnings:
        yield {"level": "warning", "message": {"text": visible(warning, length=1000)}}


def _result(
    finding: Finding, why: Suppressed | None, report: Report, index: int
) -> Record:
    return {
        "ruleId": visible(finding.code),
        "ruleIndex": index,
        "level": _LEVELS[finding.level],
        "message": {"text": _words(finding)},
        "locations": [_location(finding, report)],
        "partialFingerprints": {
            "primaryLocationLineHash": f"{finding.fingerprint}:1",
            "vgaudit/v1": finding.fingerprint,
        },
        **({"suppressions": [_suppression(why)]} if why is not None else {}),
        "properties": {
            "value": finding.value,
            "limit": finding.limit,
            "unit": finding.unit,
            "unclear": finding.unclear,
        },
    }


def _suppression(why: Suppressed) -> Record:
    return {
        "kind": "external",
        "status": "accepted",
        "justification": f"{why.by}: {visible(why.reason, length=500)}",
    }


def _words(finding: Finding) -> str:
    lines = [visible(finding.message, length=1000)]
    lines += [visible(line, length=300) for line in finding.evidence]
    if finding.fix is not None:
        lines.append(f"Try: {visible(finding.fix.text, length=300)}")
    # A bracket would begin a link in a message of SARIF.
    return "\n".join(lines).replace("[", "\\[")


def _location(finding: Finding, report: Report) -> Record:
    at = place(finding, report.audit)
    location: Record = {
        "physicalLocation": {
            "artifactLocation": {"uri": reference(at.file)},
            "region": {"startLine": at.line},
        }
    }
    if finding.layer:
        name = visible(finding.layer)
        location["logicalLocations"] = [{"fullyQualifiedName": name, "kind": "module"}]
    return location
