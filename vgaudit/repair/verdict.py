"""Which arm is kept, and what that says: by the intervals over seeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vgaudit.estimates import Estimate, clears
from vgaudit.findings import Report
from vgaudit.fixing import CONTROLS, Attempt, Family, Fixing, Status, first_best

_NORMS = ("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm")


def ended(found: Fixing, status: Status, reason: str) -> Fixing:
    """Returns a repair that is over, with the reason."""
    return replace(found, status=status, reason=reason)


def judged(done: Fixing) -> Fixing:
    """Returns a finished repair with its verdict: status, reason, and what to keep.

    The best treatment is kept only where it clears both best controls, and the floor:
    the better of the model as it came and of a constant answer. Each of these must
    hold by itself, so no level is divided (an intersection-union test: Berger,
    Technometrics 24, 1982). Else the better control, where it clears the floor; else
    the one trained model that the choosing samples prefer, where the judging samples
    alone put it above the floor; else nothing.
    """
    found = replace(done, best=_finalist(done, "treatment"), control=_control(done))
    if _proven(found):
        both = " and ".join(_finalist(found, family) for family in CONTROLS)
        reason = f"{found.best} clears both best controls, {both}"
        return replace(found, status="repaired", kept=found.best, reason=reason)
    if _clears(found, found.estimate(found.control), _floor(found)):
        reason = _plain_words(found)
        return replace(found, status="control", kept=found.control, reason=reason)
    single = _single(found)
    if single is not None:
        reason = _lone_words(found, single)
        return replace(found, status="unproven", kept=single.arm, reason=reason)
    reason = (
        "neither treatments nor controls are better than chance beyond doubt; the "
        f"best treatment was {found.best}"
    )
    return replace(found, status="nothing", reason=reason)


def _proven(found: Fixing) -> bool:
    """Tells whether the best treatment clears every control and the floor."""
    ours = found.estimate(found.best)
    theirs = [found.estimate(_finalist(found, family)) for family in CONTROLS]
    return all(_clears(found, ours, other) for other in (*theirs, _floor(found)))


def _plain_words(found: Fixing) -> str:
    """Returns what to do where a control is as good as any treatment."""
    assert found.plan is not None
    arm = found.plan.arm(found.control)
    if arm.family == "sweep":
        return (
            f"train it with {arm.method} at lr {arm.lr:.2g}; no change of the model is "
            f"needed: {found.best}, the best treatment, does not clear that"
        )
    return (
        f"{arm.name}, drawn without a look at the model, is kept: {found.best}, the "
        "best treatment for the findings, is not better beyond doubt"
    )


def _lone_words(found: Fixing, single: Attempt) -> str:
    """Returns what is kept where no method is proven, and what is open about it."""
    lone = (
        f"{single.arm} with seed {single.seed} is kept, which is better than chance on "
        "samples that it has not seen; over its seeds "
    )
    if _clears(found, found.estimate(found.best), _floor(found)):
        return f"{lone}{found.best} is so too, but does not clear {found.control}"
    return f"{lone}no arm is beyond doubt: another seed may not learn"


def above(found: Fixing, score: float) -> bool:
    """Tells whether one model is better than as it came, and than a constant answer.

    The uncertainty is that of the judging samples alone.
    """
    return _clears(found, Estimate(score, 0.0, 1), _floor(found))


def _single(found: Fixing) -> Attempt | None:
    """Returns the trained model that chose best, where judging puts it above chance.

    It is one model, and other samples chose it.
    """
    best = first_best(found.attempts)
    return best if above(found, best.score) and not best.failure else None


def _floor(found: Fixing) -> Estimate:
    return Estimate(found.floor, 0.0, 1)


def _clears(found: Fixing, one: Estimate, other: Estimate) -> bool:
    return clears(one, other, metric=found.metric, judged=found.judged)


def _control(found: Fixing) -> str:
    """Returns the control to recommend: the plain model, where its rate is enough.

    Random repair only where it clears that, or where the plain model does not clear
    the floor and random repair has the better mean.
    """
    plain, drawn = (_finalist(found, family) for family in CONTROLS)
    ours, theirs = found.estimate(plain), found.estimate(drawn)
    if _clears(found, ours, _floor(found)):
        return drawn if _clears(found, theirs, ours) else plain
    return drawn if theirs.mean > ours.mean else plain


def _finalist(found: Fixing, family: Family) -> str:
    arm = found.finalist(family)
    assert arm is not None
    return arm.name


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
