"""What the scan says about a repair: whether one is needed, and of what."""

from __future__ import annotations

from vgaudit.errors import NothingMeasured
from vgaudit.findings import Report
from vgaudit.fixing import Fixing, FixOptions
from vgaudit.repair import candidates, verdict


def diagnosed(report: Report, options: FixOptions) -> Fixing:
    """Returns the diagnosis: healthy with the reason, or what failed.

    Raises:
        NothingMeasured: the scan could not tell.
    """
    if report.status == "inconclusive":
        raise NothingMeasured(
            "; ".join(report.warnings) or "nothing was measured",
            hint="a repair needs a diagnosis: `vgaudit scan` says what is missing",
        )
    failing = [finding for finding in report.findings if report.fails(finding)]
    names = tuple(f"{finding.code} {finding.name}" for finding in failing)
    found = Fixing(
        options=options,
        status="interrupted",
        reason="",
        findings=names,
        before=report.audit,
        advice=verdict.advice(report) if report.findings else (),
    )
    if not failing:
        return verdict.ended(found, "healthy", _nothing_fails(report))
    if candidates.cause(report) is None:
        reason = (
            f"no treatment here is for {', '.join(names)}: the model was left alone"
        )
        return verdict.ended(found, "nothing", reason)
    return found


def _nothing_fails(report: Report) -> str:
    rest = report.count("warning")
    return "no finding fails the scan" + (
        f" ({rest} warnings; --fail-on warning repairs those too)" if rest else ""
    )
