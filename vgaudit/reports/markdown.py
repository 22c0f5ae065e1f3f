"""Markdown for a pull request or a step summary: the verdict first, then the worst.

At most 30 rows a table and 60,000 characters; the JSON report has everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from vgaudit.findings import LEVELS, Finding, Fix, Report
from vgaudit.flow import Audit, LayerFlow
from vgaudit.plain import visible
from vgaudit.reports.escaping import inert, markdown
from vgaudit.reports.place import place
from vgaudit.reports.verdict import headline
from vgaudit.rules.budget import sentence
from vgaudit.rules.wording import count, decades
from vgaudit.suite import Entry, Suite, single

ROWS = 30
WAYS = 5
LAYERS = 10
LENGTH = 60_000


def render(report: Report) -> str:
    """Returns the report as Markdown."""
    return _document([list(_report(single(report).entries[0], "##"))])


def render_suite(suite: Suite) -> str:
    """Returns the reports as Markdown: a table of verdicts, then each report."""
    head = [*_overview(suite)]
    worst_first = sorted(suite.entries, key=lambda entry: entry.report.exit_code == 0)
    return _document([head, *(list(_report(x, "###")) for x in worst_first)])


def _document(sections: list[list[str]]) -> str:
    """Returns the sections that fit, and says how many do not."""
    text, left = "", len(sections)
    for section in sections:
        block = "\n".join(section) + "\n\n"
        if len(text) + len(block) > LENGTH - 200:
            break
        text, left = text + block, left - 1
    if left:
        text += f"… and {count(left, 'more section')}: see the JSON report.\n"
    return inert(text.rstrip("\n") + "\n")


def _overview(suite: Suite) -> Iterator[str]:
    yield f"## vgaudit: {suite.status.upper()}"
    yield ""
    yield "| target | verdict | errors | warnings | |"
    yield "|---|---|---:|---:|---|"
    for entry in suite.entries[:ROWS]:
        report = entry.report
        cells = (
            markdown(entry.name),
            report.status.upper(),
            str(report.count("error")),
            str(report.count("warning")),
            markdown(headline(report), length=300),
        )
        yield f"| {' | '.join(cells)} |"
    yield from _more(len(suite.entries) - ROWS, "target")


def _report(entry: Entry, heading: str) -> Iterator[str]:
    report = entry.report
    yield f"{heading} {report.status.upper()}: {markdown(entry.name)}"
    yield ""
    yield f"**{markdown(headline(report), length=500)}**"
    for error in report.errors:
        if error.get("hint"):
            yield ""
            yield f"Way out: {markdown(str(error['hint']), length=500)}"
    if report.audit is not None:
        yield ""
        yield from _facts(report.audit)
    if report.findings:
        yield ""
        yield from _findings(report)
    if report.audit is not None:
        yield from _layers(report.audit)
    yield ""
    yield _closing(report)


def _facts(audit: Audit) -> Iterator[str]:
    target, flow = audit.target, audit.flow
    yield " · ".join(
        (
            markdown(target.architecture),
            count(flow.weight_layers, "weight layer"),
            count(target.parameters, "parameter"),
            f"{flow.samples:,} {audit.data.kind} samples",
            f"{flow.probe}, {flow.mode}, {markdown(flow.precision.dtype)}",
        )
    )
    lost = flow.attenuation is not None and flow.attenuation.value < -1
    where = sentence(flow) if lost and not flow.uncalibrated else ""
    if where:
        yield ""
        yield f"Where it went: {markdown(where, length=500)}"


def _findings(report: Report) -> Iterator[str]:
    yield "| level | rule | where | what |"
    yield "|---|---|---|---|"
    for finding in report.findings[:ROWS]:
        cells = (
            finding.level,
            f"{markdown(finding.code)} {markdown(finding.name)}",
            _where(finding, report.audit),
            markdown(finding.message, length=600),
        )
        yield f"| {' | '.join(cells)} |"
    yield from _more(len(report.findings) - ROWS, "finding")
    yield from _ways_out(report.findings)


def _ways_out(findings: Sequence[Finding]) -> Iterator[str]:
    """Yields what to try against findings that follow from no other, each once."""
    ways: dict[tuple[str, str], tuple[Finding, Fix]] = {}
    for finding in findings:
        if finding.fix is not None and finding.level != "info" and not finding.cause:
            ways.setdefault((finding.code, finding.fix.text), (finding, finding.fix))
    if not ways:
        return
    yield ""
    yield "What to try:"
    yield ""
    for finding, fix in list(ways.values())[:WAYS]:
        line = f"- {markdown(finding.code)}: {markdown(fix.text, length=300)}"
        if fix.reason:
            line += f", because {markdown(fix.reason, length=300)}"
        # What explains a rule is named once, by its code.
        if not fix.command.startswith("vgaudit explain "):
            line += f" ({markdown(fix.command, length=300)})"
        yield line


def _where(finding: Finding, audit: Audit | None) -> str:
    layer = markdown(finding.layer) if finding.layer else "the model"
    if finding.source is None:
        return layer
    at = place(finding, audit)
    return f"{layer} ({markdown(at.file)}:{at.line})"


def _layers(audit: Audit) -> Iterator[str]:
    """Yields the weight layers that get least, folded away."""
    rows = [
        (layer, value)
        for layer in audit.flow.layers
        if layer.weighted and (value := _attenuation(layer)) is not None
    ]
    if audit.flow.uncalibrated or len(rows) < 2:
        return
    yield ""
    yield "<details><summary>Layers that get the least gradient</summary>"
    yield ""
    yield "| layer | type | decades |"
    yield "|---|---|---:|"
    for layer, value in sorted(rows, key=lambda row: row[1])[:LAYERS]:
        figure = decades(value) if math.isfinite(value) else "zero gradient"
        yield f"| {markdown(layer.path)} | {markdown(layer.type)} | {figure} |"
    yield ""
    yield "</details>"


def _attenuation(layer: LayerFlow) -> float | None:
    if layer.attenuation is not None:
        return layer.attenuation.value
    return -math.inf if layer.zero_gradient else None


def _more(rest: int, noun: str) -> Iterator[str]:
    if rest > 0:
        yield ""
        yield f"… and {count(rest, f'more {noun}')}: see the JSON report."


def _closing(report: Report) -> str:
    parts = [count(report.count(level), level) for level in LEVELS[:2]]
    parts.append(f"{report.count('info')} info")
    known = sum(x.by == "baseline" for x in report.suppressed)
    ignored = len(report.suppressed) - known
    if known:
        parts.append(f"{known:,} known from the baseline")
    if ignored:
        parts.append(f"{ignored:,} ignored")
    exit_code = f"exit {report.exit_code}"
    return f"{', '.join(parts)} · judged for {visible(report.optimizer)} · {exit_code}"
