"""JUnit XML: a suite for each target, a case for each rule and each finding.

A finding that fails the gate is a failure, one that is ignored or known from the
baseline is skipped, and a run that failed or measured too little is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from vgaudit.findings import Finding, Report
from vgaudit.plain import visible
from vgaudit.reports.escaping import inert
from vgaudit.reports.place import place
from vgaudit.reports.verdict import headline
from vgaudit.rules import RULES
from vgaudit.suite import Entry, Suite, single

MOST = 5000
"""Cases of one suite; the rest is counted in one more."""

KINDS = {"failure": "failures", "error": "errors", "skipped": "skipped"}


def render(report: Report) -> str:
    """Returns the report as a JUnit document."""
    return render_suite(single(report))


def render_suite(suite: Suite) -> str:
    """Returns the reports as one JUnit document."""
    root = Element("testsuites", name="vgaudit")
    total: Counter[str] = Counter()
    for entry in suite.entries:
        total.update(_suite(root, entry))
    _count(root, total)
    indent(root, " ")
    text = inert(tostring(root, encoding="unicode"))
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _suite(root: Element, entry: Entry) -> Counter[str]:
    audit = entry.report.audit
    node = SubElement(root, "testsuite", name=visible(entry.name))
    counts: Counter[str] = Counter()
    for case in _cases(entry.report):
        if counts["tests"] == MOST:
            break
        case.set("classname", f"vgaudit.{visible(entry.name)}")
        node.append(case)
        counts["tests"] += 1
        counts.update(KINDS[child.tag] for child in case if child.tag in KINDS)
    _count(node, counts)
    node.set("time", f"{audit.run.seconds:.3f}" if audit is not None else "0.000")
    return counts


def _count(node: Element, counts: Counter[str]) -> None:
    for name in ("tests", "failures", "errors", "skipped"):
        node.set(name, str(counts[name]))


def _cases(report: Report) -> Iterator[Element]:
    if report.status in ("error", "inconclusive"):
        case = Element("testcase", name="verdict")
        text = headline(report)
        SubElement(case, "error", type=report.status, message=text).text = text
        yield case
    if report.audit is None:
        return
    for finding in report.findings:
        yield _finding(finding, report)
    for entry in report.suppressed:
        case = Element("testcase", name=_name(entry.finding))
        reason = f"{entry.by}: {visible(entry.reason, length=300)}"
        SubElement(case, "skipped", message=reason)
        yield case
    spoken = {f.code for f in report.findings}
    spoken |= {entry.finding.code for entry in report.suppressed}
    for rule in RULES:
        if rule.code not in spoken:
            yield Element("testcase", name=f"{rule.code} {rule.name}")


def _finding(finding: Finding, report: Report) -> Element:
    case = Element("testcase", name=_name(finding))
    at = place(finding, report.audit)
    text = "\n".join(
        [
            visible(finding.message, length=1000),
            *(visible(line, length=300) for line in finding.evidence),
            f"{visible(at.file, length=300)}:{at.line}",
        ]
    )
    if report.fails(finding):
        kind = f"{finding.code} {finding.name}"
        message = visible(finding.message, length=1000)
        SubElement(case, "failure", type=kind, message=message).text = text
    else:
        SubElement(case, "system-out").text = f"{finding.level}: {text}"
    return case


def _name(finding: Finding) -> str:
    where = f" at {visible(finding.layer)}" if finding.layer else ""
    return f"{finding.code} {finding.name}{where}"
