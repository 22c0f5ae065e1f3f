"""From a measurement to a verdict: rules, levels, status and exit code.

Judging reads plain numbers only, so an archived audit can be judged again with
other thresholds, without the model and without torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from vgaudit import causes
from vgaudit.declared import check_fields, check_kind
from vgaudit.errors import NothingMeasured, VgauditError
from vgaudit.findings import (
    LEVELS,
    FailOn,
    Finding,
    Level,
    Optimizer,
    Report,
    Status,
    Suppressed,
)
from vgaudit.flow import Audit, GradientFlow
from vgaudit.rules import Rule, Training
from vgaudit.rules.selection import configured, selected, thresholds

EXIT_FAIL = 1
EXIT_INCONCLUSIVE = 4
UNCALIBRATED = "VG004"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the user decides about a verdict.

    Attributes:
        optimizer: what will train the model.
        select, ignore: codes, starts of codes, or slugs of rules.
        fail_on: the least level of a finding that fails the gate.
        overrides: thresholds by ``rule.name``.
        exit_zero: exit 0 where a failed gate would exit 1.
        command: what the user typed, for the report.
    """

    optimizer: Optimizer = "sgd"
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    fail_on: FailOn = "error"
    overrides: Mapping[str, float] = field(default_factory=dict)
    exit_zero: bool = False
    command: str = ""

    def check(self) -> None:
        """Refuses a policy with a field that does not fit.

        Raises:
            BadConfig: an optimizer, a level, a rule or a threshold is unknown, or a
                field has another type.
        """
        check_fields("policy", self, Policy)
        selected(self.select, self.ignore)
        configured(self.overrides)


DEFAULT = Policy()


def judge(audit: Audit, policy: Policy = DEFAULT) -> Report:
    """Returns the report on a measurement: its findings, and whether it passes.

    Raises:
        BadConfig: the policy names what is unknown, as in ``Policy.check``.
    """
    check_kind("policy", policy, Policy).check()
    rules = configured(policy.overrides)
    codes = selected(policy.select, policy.ignore)
    everything = _without_implied(_check(rules, audit, policy), rules)
    kept = [f for f in _ordered(everything, audit.flow) if f.code in codes]
    findings = causes.grouped(kept, audit.flow)
    gaps = tuple(_gaps(audit.flow))
    status = _status(findings, policy.fail_on, inconclusive=bool(gaps))
    return Report(
        status=status,
        exit_code=_exit_code(status, policy),
        command=policy.command,
        audit=audit,
        findings=findings,
        warnings=(*audit.warnings, *gaps),
        optimizer=policy.optimizer,
        thresholds={
            f"{rule.name}.{name}": float(value)
            for rule in rules
            for name, value in thresholds(rule).items()
        },
        fail_on=policy.fail_on,
    )


def concluded(
    report: Report,
    policy: Policy,
    *,
    findings: Iterable[Finding],
    suppressed: Iterable[Suppressed] = (),
) -> Report:
    """Returns a judged report with other findings, and its verdict anew.

    Findings of rules that are not selected are left out. A report on a run that
    failed stays as it is.

    Raises:
        BadConfig: the policy names an unknown rule.
    """
    if report.audit is None:
        return report
    codes = selected(policy.select, policy.ignore)
    flow = report.audit.flow
    ordered = [f for f in _ordered(findings, flow) if f.code in codes]
    kept = causes.grouped(ordered, flow)
    status = _status(kept, policy.fail_on, inconclusive=any(_gaps(flow)))
    return replace(
        report,
        status=status,
        exit_code=_exit_code(status, policy),
        findings=kept,
        suppressed=tuple(suppressed),
        fail_on=policy.fail_on,
    )


def failed(error: VgauditError, policy: Policy = DEFAULT) -> Report:
    """Returns the report on a run that ended before anything was judged."""
    nothing = isinstance(error, NothingMeasured)
    return Report(
        status="inconclusive" if nothing else "error",
        exit_code=error.exit_code,
        command=policy.command,
        errors=(error.to_dict(),),
        optimizer=policy.optimizer,
        fail_on=policy.fail_on,
    )


def _check(rules: Iterable[Rule], audit: Audit, policy: Policy) -> Iterator[Finding]:
    training = Training(optimizer=policy.optimizer)
    for rule in rules:
        if not (rule.transport and audit.flow.uncalibrated):
            yield from rule.check(audit, training)


def _without_implied(
    findings: Iterable[Finding], rules: Iterable[Rule]
) -> list[Finding]:
    """Drops what a finding of another rule already says and more."""
    stated = list(findings)
    certain = {f.code for f in stated if f.level != "info"}
    implied = {rule.code for rule in rules if certain.intersection(rule.implied_by)}
    return [f for f in stated if f.code not in implied]


def _ordered(findings: Iterable[Finding], flow: GradientFlow) -> list[Finding]:
    """Sorts findings: errors first, then from the input to the output."""
    order: dict[str, int] = {}
    for layer in flow.layers:
        order.setdefault(layer.path, layer.order)

    def place(finding: Finding) -> tuple[int, int, str]:
        first = finding.layers[0] if finding.layers else ""
        return LEVELS.index(finding.level), order.get(first, -1), finding.code

    return sorted(findings, key=place)


def _gaps(flow: GradientFlow) -> Iterator[str]:
    """Yields why there is too little to judge."""
    if flow.uncalibrated:
        yield (
            "inconclusive: normalization statistics were never updated, so the "
            "gradients of this run mean nothing"
        )
    if flow.static is not None:
        if flow.static.judged < 2:
            yield "inconclusive: weights and graph alone say nothing of this model"
        return
    if flow.parameters_only:
        yield "inconclusive: the gradients of parameters alone cannot show transport"
        return
    reached = sum(
        layer.weighted and (layer.attenuation is not None or layer.zero_gradient)
        for layer in flow.layers
    )
    if reached < 2:
        what = "only one weight layer has" if reached else "no weight layer has"
        yield f"inconclusive: nothing to compare, {what} a gradient"


def _status(
    findings: Iterable[Finding], fail_on: FailOn, *, inconclusive: bool
) -> Status:
    # VG004 says that there is no verdict; it cannot be one itself.
    failing = any(f.code != UNCALIBRATED and _fails(f.level, fail_on) for f in findings)
    if failing:
        return "fail"
    return "inconclusive" if inconclusive else "pass"


def _fails(level: Level, fail_on: FailOn) -> bool:
    return fail_on != "never" and LEVELS.index(level) <= LEVELS.index(fail_on)


def _exit_code(status: Status, policy: Policy) -> int:
    if status == "fail":
        return 0 if policy.exit_zero else EXIT_FAIL
    return EXIT_INCONCLUSIVE if status == "inconclusive" else 0
