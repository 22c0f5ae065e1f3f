"""Which arm is kept, and what that says: by the intervals over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from vgaudit.findings import Report
from vgaudit.fixing import Arm, Estimate, Fixing, Plan, clears

_NORMS = ("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm")


def judged(done: Fixing) -> Fixing:
    """Returns a finished repair with its verdict: status, reason, and what to keep.

    The best candidate is kept only where it clears the best control and the model as
    it came; else the best control, where that clears the model; else nothing.
    """
    assert done.plan is not None
    assert done.base is not None
    best = _best(done, done.plan, "candidate")
    control = _best(done, done.plan, "control")
    ours, theirs = done.estimate(best), done.estimate(control)
    came = Estimate(done.base, 0.0, 1)

    def better(one: Estimate, other: Estimate) -> bool:
        return clears(one, other, metric=done.metric, judged=done.judged)

    found = replace(done, best=best, control=control)
    if better(ours, theirs) and better(ours, came):
        reason = f"{best} clears the best control, {control}"
        return replace(found, status="repaired", kept=best, reason=reason)
    if better(theirs, came):
        reason = (
            f"no candidate clears the best control: {control} is recommended, and "
            "what vgaudit would have done is not better beyond doubt"
        )
        return replace(found, status="control", kept=control, reason=reason)
    reason = (
        f"neither candidates nor controls are better than the model as it came beyond "
        f"doubt; the best candidate was {best}"
    )
    return replace(found, status="nothing", reason=reason)


def _best(done: Fixing, plan: Plan, role: str) -> str:
    arms: Sequence[Arm] = [arm for arm in plan.arms if arm.role == role]
    return max(arms, key=lambda arm: done.estimate(arm.name).mean).name


def advice(report: Report) -> tuple[str, ...]:
    """Returns what the findings recommend, which nothing here has tried."""
    return tuple(dict.fromkeys(_advice(report)))


def _advice(report: Report) -> Iterator[str]:
    assert report.audit is not None
    types = {layer.type for layer in report.audit.flow.layers}
    if not any(norm in name for name in types for norm in _NORMS):
        yield (
            "normalise before each activation (LayerNorm or BatchNorm): a change of "
            "the architecture, which was not tried"
        )
    for finding in report.findings:
        if finding.level != "info" and finding.fix is not None:
            yield f"{finding.code} {finding.name}: {finding.fix.text}"
