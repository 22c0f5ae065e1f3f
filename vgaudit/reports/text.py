"""The terminal report: the verdict first, then where the gradient goes, then why.

Everything that came out of a model file is shown as text: no markup, no control
characters, no name longer than 120 characters.
"""

from __future__ import annotations

import io
import math
import ntpath
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vgaudit.findings import LEVELS, Finding, Fix, Report, Status
from vgaudit.flow import Audit, GradientFlow, LayerFlow, Source
from vgaudit.plain import visible
from vgaudit.reports.look import BLOCKS, Look, ascii_only, bar, binned, heights
from vgaudit.rules.budget import shares
from vgaudit.rules.wording import count, decades, percent

STATUS_STYLE: dict[Status, str] = {
    "pass": "bold black on green",
    "fail": "bold white on red",
    "inconclusive": "bold black on yellow",
    "error": "bold white on red",
}
LEVEL_STYLE = {"error": "bold red", "warning": "yellow", "info": "cyan"}
LABEL = 15
INDENT = 2
STATED = frozenset({"where it went", "worst step"})
"""Evidence that the lines above the findings state already."""

INCONCLUSIVE = "inconclusive: "
"""How a warning begins that the verdict repeats."""

WORTH_A_BUDGET = 1.0
"""Decades of loss from which it is worth telling where they went."""

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
    text = "\n".join(lines).rstrip("\n") + "\n"
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
        yield ""
        yield from _transport(report, audit.flow, look)
    if look.verbose:
        yield ""
        yield _layers(audit.flow, look)
    if report.findings:
        yield ""
        yield from _findings(report, look)
    yield from _list("not measured", _unmeasured(audit.flow), look)
    yield from _list("notes", _notes(report, audit), look)
    yield ""
    yield _closing(report)


def _about(audit: Audit, look: Look) -> Iterator[RenderableType]:
    target, flow = audit.target, audit.flow
    yield Text(visible(target.spec), style="bold")
    yield _dim(
        visible(target.architecture),
        count(flow.weight_layers, "weight layer"),
        count(target.parameters, "parameter"),
        f"{visible(target.format)}, {target.trust_tier}",
    )
    samples = f"{flow.samples:,} {audit.data.kind} samples ({visible(audit.data.spec)})"
    probe = "jacobian probe" if flow.probe == "jacobian" else visible(audit.data.loss)
    yield _dim(samples, probe, f"{flow.mode}, {flow.precision.dtype}, {flow.device}")
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
    grid.add_row(line, Text(_headline(report), style="bold"), exit_code)
    return Padding(grid, (0, 0, 0, INDENT))


def _headline(report: Report) -> str:
    if report.errors:
        return visible(str(report.errors[0].get("message", "")), length=500)
    if report.status == "inconclusive":
        gaps = [x for x in report.warnings if x.startswith(INCONCLUSIVE)]
        return visible(gaps[0].removeprefix(INCONCLUSIVE) if gaps else "no verdict")
    lost = next((f for f in report.findings if f.code == "VG101"), None)
    if lost is not None and not lost.unclear and lost.value is not None:
        where = visible(lost.layers[0] if lost.layers else "the first layer")
        away = f"{decades(-lost.value)} decades between the output and {where}"
        return f"gradient lost: {away}"
    worst = next((f for f in report.findings if f.level == "error"), None)
    if worst is not None:
        more = report.count("error") - 1
        rest = f", and {count(more, 'more error')}" if more else ""
        place = f": {visible(worst.layer)}" if worst.layer else ""
        return f"{worst.name}{place}{rest}"
    return _healthy(report)


def _healthy(report: Report) -> str:
    flow = report.audit.flow if report.audit else None
    warnings = report.count("warning")
    state = (
        f"{count(warnings, 'warning')}, no error" if warnings else "gradient healthy"
    )
    if flow is None or flow.attenuation is None:
        return state
    value = flow.attenuation.value
    change = f"{decades(abs(value))} decades {'lost' if value < 0 else 'gained'}"
    first = _deepest(flow)
    return f"{state}: {change} from the output to {first}"


def _deepest(flow: GradientFlow) -> str:
    layer = next((x for x in flow.layers if x.weighted and x.trunk), None)
    return visible(layer.path) if layer else "the first layer"


def _errors(report: Report) -> Iterator[RenderableType]:
    for error in report.errors:
        hint = str(error.get("hint", ""))
        if hint:
            yield _row("way out", Text(visible(hint, length=500)))


def _transport(
    report: Report, flow: GradientFlow, look: Look
) -> Iterator[RenderableType]:
    profile = _profile(report, flow, look)
    if profile is not None:
        yield _row("depth profile", profile)
    if flow.attenuation is None or flow.attenuation.value > -WORTH_A_BUDGET:
        return
    yield from _budget(flow)
    worst = flow.worst_step
    if worst is not None and worst.gain.value < 0:
        loss = f"{decades(worst.gain.value)} decades"
        line = Text(f"{visible(worst.layer or worst.name)} ({loss})")
        source = next((x.source for x in flow.layers if x.path == worst.layer), None)
        if source is not None:
            line.append(f"  {_at(source)}", style="dim")
        yield _row("worst step", line)


def _budget(flow: GradientFlow) -> Iterator[RenderableType]:
    """Yields a bar for each kind of operation that loses gradient."""
    rows = [row for row in shares(flow) if row.share >= 0.01]
    wide = max((len(row.noun) for row in rows), default=0)
    for index, row in enumerate(rows):
        line = Text(row.noun.ljust(wide + 1))
        line.append(bar(row.share), style="red" if index == 0 else "")
        line.append(f" {percent(row.share)}".rjust(7))
        line.append(f"  {decades(row.decades)}", style="dim")
        yield _row("where it went" if index == 0 else "", line)


def _profile(report: Report, flow: GradientFlow, look: Look) -> Text | None:
    """Returns one bar for each weight layer of the trunk, input first."""
    values = _depth_values(flow)
    if len(values) < 2:
        return None
    shown = binned(values, max(look.width - LABEL - 40, 16))
    limit = report.thresholds.get(f"vanishing-gradient.{report.optimizer}_error", -3.25)
    line = Text()
    for value, height in zip(shown, heights(shown), strict=True):
        style = "red" if value < limit else "yellow" if value < limit + 1 else "green"
        line.append(BLOCKS[height], style=style)
    ends = f"  {_figure(values[0])} … {_figure(values[-1])} decades"
    line.append(ends)
    line.append("  input … output", style="dim")
    return line


def _depth_values(flow: GradientFlow) -> list[float]:
    """Returns the attenuation at each weight layer of the trunk, in forward order.

    Where skips leave fewer than two such layers, every weight layer counts.
    """
    for trunk_only in (True, False):
        values = [
            _attenuation(x)
            for x in flow.layers
            if x.weighted and (x.trunk or not trunk_only)
        ]
        known = [value for value in values if value is not None]
        if len(known) >= 2:
            return known
    return []


def _attenuation(layer: LayerFlow) -> float | None:
    if layer.attenuation is not None:
        return layer.attenuation.value
    return -math.inf if layer.zero_gradient else None


def _figure(value: float) -> str:
    return decades(value) if math.isfinite(value) else "zero gradient"


def _layers(flow: GradientFlow, look: Look) -> RenderableType:
    """Returns the weight layers with the least gradient, in forward order."""
    rows = [
        (x, value)
        for x in flow.layers
        if x.weighted and (value := _attenuation(x)) is not None
    ]
    worst = sorted(rows, key=lambda row: row[1])[: look.top]
    kept = {id(layer) for layer, _ in worst}
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(overflow="fold", max_width=max(look.width // 3, 20))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(style="dim", overflow="fold")
    lowest = min((v for _, v in rows if math.isfinite(v)), default=-4.0)
    for layer, value in rows:
        if id(layer) in kept:
            share = 1 - value / min(lowest, -4.0) if math.isfinite(value) else 0.0
            at = _at(layer.source) if layer.source else layer.type
            name = visible(layer.path)
            grid.add_row(name, _figure(value), bar(share, width=16), visible(at))
    return Padding(grid, (0, 0, 0, INDENT))


def _findings(report: Report, look: Look) -> Iterator[RenderableType]:
    for finding in report.findings[: look.top]:
        yield _finding(finding, look)
    more = len(report.findings) - look.top
    if more > 0:
        text = f"… and {count(more, 'more finding')}: --report json=PATH lists them all"
        yield Padding(Text(text, style="dim"), (0, 0, 0, INDENT))


def _finding(finding: Finding, look: Look) -> RenderableType:
    head = Text.assemble(
        (finding.level.upper().ljust(8), LEVEL_STYLE[finding.level]),
        (finding.code, "bold"),
        f" {finding.name}",
    )
    if finding.layer:
        head.append(f"  {visible(finding.layer)}", style="cyan")
    if finding.source is not None:
        head.append(f"  {_at(finding.source)}", style="dim")
    body: list[RenderableType] = [Text(visible(finding.message, length=600))]
    for line in finding.evidence:
        if look.verbose or line.partition(":")[0] not in STATED:
            body.append(Text(visible(line, length=300), style="dim"))
    if finding.fix is not None and finding.level != "info":
        body.append(_way_out(finding.fix))
    inner = Padding(Group(*body), (0, 0, 0, 8))
    return Padding(Group(head, inner), (0, 0, 0, INDENT))


def _way_out(fix: Fix) -> Text:
    line = Text.assemble(("try: ", "bold"), visible(fix.text, length=300))
    # The last line of the report says how to have a rule explained.
    if not fix.command.startswith("vgaudit explain "):
        line.append(f" ({visible(fix.command)})")
    return line


def _unmeasured(flow: GradientFlow) -> list[str]:
    return [f"{visible(x.path)}: {visible(x.reason)}" for x in flow.not_measured]


def _notes(report: Report, audit: Audit) -> list[str]:
    target = audit.target
    stripped = [f"key prefix '{x}' stripped" for x in target.stripped_prefixes]
    notes = [*stripped, *target.notes, *audit.data.notes, *audit.flow.notes]
    precision = audit.flow.precision
    if precision.reason:
        notes.append(f"measured in {precision.measured}: {precision.reason}")
    random = [f"not deterministic: {op}" for op in audit.run.nondeterministic]
    said = [x for x in report.warnings if not x.startswith(INCONCLUSIVE)]
    return [visible(x, length=300) for x in (*notes, *random, *said)]


def _list(label: str, lines: list[str], look: Look) -> Iterator[RenderableType]:
    most = look.top if look.verbose else 5
    for index, line in enumerate(lines[:most]):
        if index == 0:
            yield ""
        yield _row(label if index == 0 else "", Text(line))
    if len(lines) > most:
        yield _row("", Text(f"… and {len(lines) - most:,} more", style="dim"))


def _row(label: str, value: RenderableType) -> RenderableType:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=LABEL, no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    grid.add_row(label, value)
    return Padding(grid, (0, 0, 0, INDENT))


def _closing(report: Report) -> RenderableType:
    parts = [count(report.count(level), level) for level in LEVELS[:2]]
    parts.append(f"{report.count('info')} info")
    text = f"{', '.join(parts)} · judged for {report.optimizer}"
    if report.findings:
        text += f" · more: vgaudit explain {report.findings[0].code}"
    return Padding(Text(text, style="dim"), (0, 0, 0, INDENT))


def _at(source: Source) -> str:
    # ntpath splits at both kinds of slash, whatever system wrote the report.
    return f"{visible(ntpath.basename(source.file))}:{source.line}"
