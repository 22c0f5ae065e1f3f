"""From a judged report to the decision: ignores, baseline, budgets, in this order.

An ignored finding never counts. A finding that the baseline knows does not count
either, unless it is worse than it was. Budgets and figures are held against all of
the measurement, whatever is ignored.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vgaudit.compare import pairs
from vgaudit.findings import LEVELS, Finding, Report, Suppressed
from vgaudit.judge import DEFAULT, Policy, concluded, judge
from vgaudit.rules import RULES
from vgaudit.rules.gate.known import GATE_FAMILY, refuse_foreign
from vgaudit.rules.selection import find, gate_rules, thresholds
from vgaudit.suite import Entry, Suite
from vgaudit.terms import Budget, Ignore, Known, Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What the user holds a whole run to.

    Attributes:
        ignores: of every target.
        budgets: by the name of the target; under ``""`` those of all.
        known: the baseline by the name of the target; None without a baseline.
        today: the day that ignores expire by.
    """

    ignores: tuple[Ignore, ...] = ()
    budgets: Mapping[str, tuple[Budget, ...]] = field(default_factory=dict)
    known: Mapping[str, Known] | None = None
    today: datetime.date = field(default_factory=datetime.date.today)

    def check(self) -> None:
        """Refuses ignores that name no such rule.

        Raises:
            BadConfig: a rule is unknown.
        """
        for entry in self.ignores:
            for rule in entry.rules:
                find(rule)

    def budgets_of(self, target: str) -> tuple[Budget, ...]:
        """Returns the budgets of a target: its own, and those of all beside them."""
        own = self.budgets.get(target, ())
        named = {budget.metric for budget in own}
        shared = self.budgets.get("", ()) if target else ()
        return (*own, *(x for x in shared if x.metric not in named))


def decide(
    reports: Mapping[str, Report],
    agreement: Agreement,
    policies: Mapping[str, Policy],
    *,
    command: str = "",
) -> Suite:
    """Returns the reports with the gate's findings, and their verdicts anew.

    Args:
        reports: judged, by the name of the target.
        agreement: what they are held to.
        policies: by the name of the target; the default where there is none.
        command: what the user typed.

    Raises:
        BadConfig: a baseline is of another model, or an ignore names no rule.
    """
    agreement.check()
    entries = []
    stale = dict(_stale(reports, agreement))
    for name, report in reports.items():
        terms = Terms(
            today=agreement.today,
            ignores=_holding(name, agreement),
            stale=tuple(stale.get(name, ())),
            budgets=agreement.budgets_of(name),
            known=_known(name, report, agreement),
        )
        decided = gated(report, terms, policies.get(name, DEFAULT))
        entries.append(Entry(name=name, report=decided))
    return Suite(entries=tuple(entries), command=command)


def gated(report: Report, terms: Terms, policy: Policy = DEFAULT) -> Report:
    """Returns one report with the gate's findings, and its verdict anew.

    Raises:
        BadConfig: the policy names an unknown rule or threshold.
    """
    if report.audit is None:
        return report
    counted, ignored = _ignored(report.findings, terms.ignores)
    counted, expected = _expected(counted, terms.known)
    suppressed = (*report.suppressed, *ignored, *expected)
    state = replace(
        report,
        findings=tuple(counted),
        suppressed=suppressed,
        fail_on=policy.fail_on,
    )
    own = [
        finding
        for rule in gate_rules(policy.overrides)
        for finding in rule.decide(state, terms)
    ]
    counted_own, ignored_own = _ignored(own, terms.ignores)
    return concluded(
        report,
        policy,
        findings=(*counted, *counted_own),
        suppressed=(*suppressed, *ignored_own),
    )


def judged_again(report: Report, policy: Policy) -> Report:
    """Returns the verdict on an archived report under a policy.

    Thresholds are those that the report was judged by, where the policy has none of
    its own, so that other defaults in a newer version give no other verdict.

    Raises:
        BadConfig: the policy names an unknown rule or threshold.
    """
    if report.audit is None:
        return report
    kept = {
        name: value for name, value in report.thresholds.items() if name in _DEFAULTS
    }
    return judge(
        report.audit, replace(policy, overrides={**kept, **_named(policy.overrides)})
    )


_DEFAULTS = frozenset(
    f"{rule.name}.{name}" for rule in RULES for name in thresholds(rule)
)


def _named(overrides: Mapping[str, float]) -> dict[str, float]:
    """Returns overrides with every rule by its name, codes too."""
    spelled = {}
    for key, value in overrides.items():
        head, _, name = key.partition(".")
        spelled[f"{find(head)[0].name}.{name}"] = value
    return spelled


def _holding(name: str, agreement: Agreement) -> tuple[Ignore, ...]:
    return tuple(
        x for x in agreement.ignores if x.about(name) and not x.expired(agreement.today)
    )


def _known(name: str, report: Report, agreement: Agreement) -> Known | None:
    if agreement.known is None or name not in agreement.known:
        return None
    refuse_foreign(report, agreement.known[name], name)
    return agreement.known[name]


def _stale(
    reports: Mapping[str, Report], agreement: Agreement
) -> Iterator[tuple[str, list[Ignore]]]:
    """Yields, by target, the ignores that it has to state where they are stale.

    One that any target needs is not stale; the first target that one is about
    states it, and nobody does where one of its targets was not measured.
    """
    duties: dict[str, list[Ignore]] = {}
    for entry in agreement.ignores:
        about = [name for name in reports if entry.about(name)]
        audited = [name for name in about if reports[name].audit is not None]
        used = any(
            entry.covers(finding)
            for name in audited
            for finding in reports[name].findings
        )
        if entry.expired(agreement.today):
            holders = audited or list(reports)
        else:
            holders = audited if len(audited) == len(about) and not used else []
        if holders:
            duties.setdefault(holders[0], []).append(entry)
    yield from duties.items()


def _ignored(
    findings: Iterable[Finding], ignores: Sequence[Ignore]
) -> tuple[list[Finding], list[Suppressed]]:
    counted: list[Finding] = []
    dropped: list[Suppressed] = []
    for finding in findings:
        entry = next((x for x in ignores if x.covers(finding)), None)
        if entry is None:
            counted.append(finding)
        else:
            reason = entry.reason
            if entry.expires is not None:
                reason = f"{reason} (until {entry.expires.isoformat()})"
            dropped.append(Suppressed(finding=finding, by="ignore", reason=reason))
    return counted, dropped


def _expected(
    findings: Sequence[Finding], known: Known | None
) -> tuple[list[Finding], list[Suppressed]]:
    """Splits findings into those that count and those that the baseline knows."""
    if known is None:
        return list(findings), []
    candidates = [f for f in findings if not f.code.startswith(GATE_FAMILY)]
    before = {id(new): old for old, new in pairs(known.findings, candidates)}
    counted: list[Finding] = []
    dropped: list[Suppressed] = []
    for finding in findings:
        old = before.get(id(finding))
        if old is None or LEVELS.index(finding.level) < LEVELS.index(old.level):
            counted.append(finding)
        else:
            reason = "known from the baseline"
            dropped.append(Suppressed(finding=finding, by="baseline", reason=reason))
    return counted, dropped
