"""The verdict in one sentence, and what is to be said beside it, in any format."""

from __future__ import annotations

from vgaudit.findings import Report
from vgaudit.flow import Audit, GradientFlow
from vgaudit.plain import visible
from vgaudit.reports.charts.depth import spoken
from vgaudit.rules.wording import count, decades

INCONCLUSIVE = "inconclusive: "
"""How a warning begins that the verdict repeats."""

TRANSPORT = {"VG101": "gradient lost", "VG201": "gradient explodes"}
"""The findings that are the verdict in themselves."""


def headline(report: Report) -> str:
    """Returns the verdict: what was found first of all, with its figure."""
    if report.errors:
        return visible(str(report.errors[0].get("message", "")), length=500)
    if report.status == "inconclusive":
        gaps = [x for x in report.warnings if x.startswith(INCONCLUSIVE)]
        return visible(gaps[0].removeprefix(INCONCLUSIVE) if gaps else "no verdict")
    found = next((f for f in report.findings if f.code in TRANSPORT), None)
    if found is not None and not found.unclear and found.value is not None:
        where = visible(spoken(found.layers[0]) if found.layers else "the first layer")
        away = f"{decades(abs(found.value))} decades between the output and {where}"
        return f"{TRANSPORT[found.code]}: {away}"
    worst = next((f for f in report.findings if f.level == "error"), None)
    if worst is not None:
        more = report.count("error") - 1
        rest = f", and {count(more, 'more error')}" if more else ""
        said = visible(worst.layer) or visible(worst.message, length=200)
        place = f": {said}"
        return f"{worst.name}{place}{rest}"
    return _healthy(report)


def _healthy(report: Report) -> str:
    flow = report.audit.flow if report.audit else None
    warnings = report.count("warning")
    if warnings:
        state = f"{count(warnings, 'warning')}, no error"
    elif report.suppressed:
        state = f"nothing new ({_suppressed(report)})"
    else:
        state = "gradient healthy"
    if flow is not None and flow.static is not None:
        found = f"{count(warnings, 'warning')}, no error" if warnings else "no finding"
        return f"{found} in weights and graph; nothing was run"
    if flow is None or flow.attenuation is None:
        return state
    value = flow.attenuation.value
    change = f"{decades(abs(value))} decades {'lost' if value < 0 else 'gained'}"
    first = _deepest(flow)
    return f"{state}: {change} from the output to {first}"


def _suppressed(report: Report) -> str:
    known = sum(entry.by == "baseline" for entry in report.suppressed)
    ignored = len(report.suppressed) - known
    parts = [f"{known:,} known"] * bool(known) + [f"{ignored:,} ignored"] * bool(
        ignored
    )
    return ", ".join(parts)


def _deepest(flow: GradientFlow) -> str:
    layer = next((x for x in flow.layers if x.weighted and x.trunk), None)
    return visible(spoken(layer.path)) if layer else "the first layer"


def unmeasured(flow: GradientFlow) -> list[str]:
    """Returns what the scan did not see, each with its reason."""
    return [f"{visible(x.path)}: {visible(x.reason)}" for x in flow.not_measured]


def notes(report: Report, audit: Audit) -> list[str]:
    """Returns what a reader should know of the model, the data and the run."""
    target = audit.target
    stripped = [f"key prefix '{x}' stripped" for x in target.stripped_prefixes]
    notes = [*stripped, *target.notes, *audit.data.notes, *audit.flow.notes]
    precision = audit.flow.precision
    if precision.reason:
        notes.append(f"measured in {precision.measured}: {precision.reason}")
    random = [f"not deterministic: {op}" for op in audit.run.nondeterministic]
    said = [x for x in report.warnings if not x.startswith(INCONCLUSIVE)]
    return [visible(x, length=300) for x in (*notes, *random, *said)]
