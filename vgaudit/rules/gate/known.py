"""From a report to what a baseline keeps of it, and whether two are comparable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from vgaudit.errors import BadConfig
from vgaudit.findings import Finding, Report
from vgaudit.flow import Audit, GradientFlow
from vgaudit.plain import visible
from vgaudit.rules.gate.metrics import readings
from vgaudit.terms import Known, Measurement

GATE_FAMILY = "VG9"
ALIKE = 0.5
"""Share of the baseline's weight layers that must still be there."""


def known(report: Report) -> Known:
    """Returns what a baseline keeps of a report.

    Raises:
        BadConfig: the report holds no measurement.
    """
    if report.audit is None:
        raise BadConfig(
            "a baseline cannot be made from a run that failed",
            hint="see the errors in the report",
        )
    return Known(
        measurement=measurement(report, report.audit),
        findings=tuple(map(_brief, _lasting(report))),
        metrics={name: x.figure for name, x in readings(report.audit).items()},
        layers=attenuations(report.audit.flow),
    )


def measurement(report: Report, audit: Audit) -> Measurement:
    """Returns how the figures of a report were made."""
    return Measurement(
        architecture=audit.target.architecture,
        optimizer=report.optimizer,
        probe=audit.flow.probe,
        loss=audit.data.loss,
        mode=audit.flow.mode,
        data=audit.data.kind,
        dtype=audit.flow.precision.dtype,
    )


def attenuations(flow: GradientFlow) -> dict[str, float]:
    """Returns the attenuation at each weight layer by path, in forward order."""
    return {
        layer.path: layer.attenuation.value
        for layer in flow.layers
        if layer.weighted and layer.attenuation is not None and layer.call == 0
    }


def refuse_foreign(report: Report, baseline: Known, name: str) -> None:
    """Refuses a baseline of another model, or one that was measured otherwise.

    Raises:
        BadConfig: with each difference.
    """
    if report.audit is None:
        return
    found = list(_differences(report, report.audit, baseline))
    if found:
        raise BadConfig(
            f"the baseline of {visible(name)} is another model's: {'; '.join(found)}",
            hint="`vgaudit baseline write REPORT.json --force` writes a new one",
        )


def _differences(report: Report, audit: Audit, baseline: Known) -> Iterator[str]:
    before, now = baseline.measurement, measurement(report, audit)
    for field in fields(Measurement):
        old, new = getattr(before, field.name), getattr(now, field.name)
        if old != new:
            yield f"{field.name} {visible(old)} there, {visible(new)} here"
    paths = {layer.path for layer in audit.flow.layers}
    left = sum(path in paths for path in baseline.layers)
    if paths and left < ALIKE * len(baseline.layers):
        yield f"{left} of its {len(baseline.layers):,} weight layers are here"


def _lasting(report: Report) -> Iterator[Finding]:
    """Yields the findings that a baseline can know: not the gate's own, not unclear."""
    baselined = (x.finding for x in report.suppressed if x.by == "baseline")
    for finding in (*report.findings, *baselined):
        if not finding.code.startswith(GATE_FAMILY) and finding.level != "info":
            yield finding


def _brief(finding: Finding) -> Finding:
    return Finding(
        code=finding.code,
        name=finding.name,
        level=finding.level,
        layer=finding.layer,
        layers=finding.layers,
        message=finding.message,
    )
