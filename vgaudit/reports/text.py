"""The terminal report: the verdict first, then where the gradient goes, then why.

Everything that came out of a model file is shown as text: no markup, no control
characters, no name longer than 120 characters.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vgaudit.findings import LEVELS, Finding, Fix, Report, Status
from vgaudit.flow import Audit
from vgaudit.plain import visible
from vgaudit.reports.deep import deep_section, static_section
from vgaudit.reports.escaping import inert
from vgaudit.reports.look import Look, ascii_only
from vgaudit.reports.transport import INDENT, layer_table, line_of, row, transport
from vgaudit.reports.verdict import headline, notes, unmeasured
from vgaudit.rules.wording import count, names

STATUS_STYLE: dict[Status, str] = {
    "pass": "bold black on green",
    "fail": "bold white on red",
    "inconclusive": "bold black on yellow",
    "error": "bold white on red",
}
LEVEL_STYLE = {"error": "bold red", "warning": "yellow", "info": "cyan"}
STATED = frozenset({"where it went", "worst step"})
"""Evidence that the lines above the findings state already."""

IN_FULL = 2
"""Findings of one rule and level that are shown in full where there are many."""

DEFAULT = Look()


def render(report: Report, look: Look = DEFAULT) -> str:
    """Returns the report as text for a terminal of the given look."""
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=look.width,
        color_system="standard" if look.color else None,
        force_terminal=look.color,
        no_color=not look.color,
        legacy_windows=False,
        emoji=False,
        markup=False,
        highlight=False,
    )
    for part in _parts(report, look):
        console.print(part, soft_wrap=False)
    lines = [line.rstrip() for line in stream.getvalue().split("\n")]
    text = inert("\n".join(lines).rstrip("\n") + "\n")
    return text if look.unicode else ascii_only(text)


def _parts(report: Report, look: Look) -> Iterator[RenderableType]:
    audit = report.audit
    if audit is not None:
        yield from _about(audit, look)
        yield ""
    yield _verdict(report, look)
    if audit is None:
        yield from _errors(report)
        return
    if not audit.flow.uncalibrated:
        if audit.flow.static is None:
            yield ""
        yield from transport(report, audit.flow, look)
        yield from static_section(audit.flow.static)
        yield from deep_section(audit.flow)
    if look.verbose:
        yield ""
        yield layer_table(audit.flow, look)
    if report.findings:
        yield ""
        yield from _findings(report, look)
    yield from _list("not measured", unmeasured(audit.flow), look)
    yield from _list("notes", notes(report, audit), look)
    yield ""
    yield _closing(report)


def _about(audit: Audit, look: Look) -> Iterator[RenderableType]:
    target, flow = audit.target, audit.flow
    yield Text(visible(target.spec), style="bold")
    own_name = [target.architecture] if target.architecture != target.spec else []
    yield _dim(
        *map(visible, own_name),
        count(flow.weight_layers, "weight layer"),
        count(target.parameters, "parameter"),
        f"{visible(target.format)}, {target.trust_tier}",
    )
    if flow.static is not None:
        seconds = f"read in {flow.static.seconds:.1f} s"
        yield _dim("weights and graph alone, nothing run", flow.mode, seconds)
        return
    samples = f"{flow.samples:,} {audit.data.kind} samples ({visible(audit.data.spec)})"
    probe = "jacobian" if flow.probe == "jacobian" else visible(audit.data.loss)
    how = (probe, flow.mode, flow.precision.dtype, flow.device)
    yield _dim(samples, ", ".join(how))
    if look.verbose and target.sha256:
        yield _dim(f"sha256 {visible(target.sha256)}")


def _dim(*facts: str) -> Text:
    return Text(" · ".join(facts), style="dim")


def _verdict(report: Report, look: Look) -> RenderableType:
    line = Text(f" {report.status.upper()} ", style=STATUS_STYLE[report.status])
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    grid.add_column(no_wrap=True, justify="right")
    exit_code = Text(f"exit {report.exit_code}", style="dim")
    grid.add_row(line, Text(headline(report), style="bold"), exit_code)
    return Padding(grid, (0, 0, 0, INDENT))


def _errors(report: Report) -> Iterator[RenderableType]:
    for error in report.errors:
        hint = str(error.get("hint", ""))
        if hint:
            yield row("way out", Text(visible(hint, length=500)))


def _findings(report: Report, look: Look) -> Iterator[RenderableType]:
    """Yields the worst findings; those of one rule and level after the second in one.

    A rule that fires at every layer of a deep model would otherwise hide the others.
    """
    first, follow = _by_cause(report.findings)
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in first[: look.top]:
        groups.setdefault((finding.level, finding.code), []).append(finding)
    for group in groups.values():
        # What has consequences is worth its lines wherever it stands.
        group.sort(key=lambda finding: not follow.get(finding.fingerprint))
        whole = len(group) if look.verbose or len(group) <= IN_FULL + 1 else IN_FULL
        for finding in group[:whole]:
            yield _finding(finding, look, follow.get(finding.fingerprint, ()))
        if group[whole:]:
            yield _same(group[whole:])
    more = len(first) - look.top
    if more > 0:
        text = f"… and {count(more, 'more finding')}: --report json=PATH lists them all"
        yield Padding(Text(text, style="dim"), (0, 0, 0, INDENT))


def _by_cause(
    findings: Sequence[Finding],
) -> tuple[list[Finding], dict[str, list[Finding]]]:
    """Returns the findings that follow from none, and what follows from each."""
    known = {finding.fingerprint for finding in findings}
    first: list[Finding] = []
    follow: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.cause is None or finding.cause.fingerprint not in known:
            first.append(finding)
        else:
            follow.setdefault(finding.cause.fingerprint, []).append(finding)
    return first, follow


def _same(group: list[Finding]) -> RenderableType:
    """Returns one line for findings that differ in their place alone."""
    head = Text.assemble(
        (group[0].level.upper().ljust(8), LEVEL_STYLE[group[0].level]),
        (group[0].code, "bold"),
        f" {group[0].name}",
        f"  at {count(len(group), 'further place')}",
    )
    places = [finding.layer or "the model" for finding in group]
    inner = Padding(Text(names(places, most=8), style="cyan"), (0, 0, 0, 8))
    return Padding(Group(head, inner), (0, 0, 0, INDENT))


def _finding(
    finding: Finding, look: Look, follow: Sequence[Finding] = ()
) -> RenderableType:
    head = Text.assemble(
        (finding.level.upper().ljust(8), LEVEL_STYLE[finding.level]),
        (finding.code, "bold"),
        f" {finding.name}",
    )
    if finding.layer:
        head.append(f"  {visible(finding.layer)}", style="cyan")
    if finding.source is not None:
        head.append(f"  {line_of(finding.source)}", style="dim")
    body: list[RenderableType] = [Text(visible(finding.message, length=600))]
    for line in finding.evidence:
        if look.verbose or line.partition(":")[0] not in STATED:
            body.append(Text(visible(line, length=300), style="dim"))
    if finding.fix is not None and finding.level != "info":
        body.append(_way_out(finding.fix))
    body.extend(_consequences(follow, look))
    inner = Padding(Group(*body), (0, 0, 0, 8))
    return Padding(Group(head, inner), (0, 0, 0, INDENT))


def _consequences(follow: Sequence[Finding], look: Look) -> Iterator[RenderableType]:
    """Yields one line for each finding that follows from this one."""
    most = look.top if look.verbose else 5
    for finding in follow[:most]:
        line = Text.assemble(
            ("so: ", "bold"),
            (finding.level.upper(), LEVEL_STYLE[finding.level]),
            f" {finding.code} {finding.name}  ",
        )
        yield line.append(visible(finding.message, length=300))
    if len(follow) > most:
        yield Text(f"so: {len(follow) - most:,} more", style="dim")


def _way_out(fix: Fix) -> Text:
    line = Text.assemble(("try: ", "bold"), visible(fix.text, length=300))
    if fix.reason:
        line.append(f", because {visible(fix.reason, length=300)}")
    # The last line of the report says how to have a rule explained.
    if not fix.command.startswith("vgaudit explain "):
        line.append(f" ({visible(fix.command)})")
    return line


def _list(label: str, lines: list[str], look: Look) -> Iterator[RenderableType]:
    most = look.top if look.verbose else 5
    for index, line in enumerate(lines[:most]):
        if index == 0:
            yield ""
        yield row(label if index == 0 else "", Text(line))
    if len(lines) > most:
        yield row("", Text(f"… and {len(lines) - most:,} more", style="dim"))


def _closing(report: Report) -> RenderableType:
    parts = [count(report.count(level), level) for level in LEVELS[:2]]
    parts.append(f"{report.count('info')} info")
    known = sum(entry.by == "baseline" for entry in report.suppressed)
    ignored = len(report.suppressed) - known
    parts += [f"{known:,} known from the baseline"] * bool(known)
    parts += [f"{ignored:,} ignored"] * bool(ignored)
    text = f"{', '.join(parts)} · judged for {report.optimizer}"
    if report.findings:
        text += f" · more: vgaudit explain {report.findings[0].code}"
    return Padding(Text(text, style="dim"), (0, 0, 0, INDENT))
