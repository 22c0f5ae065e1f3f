"""The gate's own rules against their examples, and the decision around them."""

from __future__ import annotations

import dataclasses
import datetime
import math
from dataclasses import replace

import pytest

from vgaudit.errors import BadConfig
from vgaudit.explain import HEADINGS, sections
from vgaudit.findings import LEVELS, Finding, Report
from vgaudit.flow import Interval
from vgaudit.gate import Agreement, decide, gated, judged_again
from vgaudit.judge import Policy, failed, judge
from vgaudit.rules import RULES
from vgaudit.rules.examples import activation, around, chain, having, layer, loaded
from vgaudit.rules.gate import GATE_RULES
from vgaudit.rules.gate.known import known
from vgaudit.rules.gate.metrics import METRICS, readings
from vgaudit.rules.gate.regression import Regression
from vgaudit.terms import Budget, Ignore, Terms

TODAY = datetime.date(2026, 6, 1)
SICK = chain([-9.0, -7.0, -5.0, -3.0, -1.0, 0.0])
EXAMPLES = [
    pytest.param(rule, example, id=f"{rule.code}-{example.shows}")
    for rule in GATE_RULES
    for example in (*rule.FIRES, *rule.QUIET)
]
EACH = pytest.mark.parametrize("rule", GATE_RULES, ids=lambda rule: rule.code)


@pytest.mark.parametrize(("rule", "example"), EXAMPLES)
def test_examples(rule, example) -> None:
    found = list(rule.decide(example.report, example.terms))

    assert example.level == min(
        (f.level for f in found), key=LEVELS.index, default=None
    )
    for finding in found:
        assert (rule.code, rule.name) == (finding.code, finding.name)
        assert finding.fix is not None


@EACH
def test_a_page_has_the_fixed_headings(rule) -> None:
    assert [x for x in HEADINGS if x != "Thresholds"] == list(sections(rule))
    for field in dataclasses.fields(rule):
        assert field.metadata["meaning"]


def test_no_rule_of_the_gate_has_a_code_of_another() -> None:
    codes = [rule.code for rule in (*RULES, *GATE_RULES)]

    assert len(codes) == len(set(codes))
    assert all(rule.code.startswith("VG9") for rule in GATE_RULES)


def terms(**fields) -> Terms:
    return Terms(today=TODAY, **fields)


def codes(report: Report) -> list[str]:
    return [finding.code for finding in report.findings]


# --- ignores


@pytest.mark.parametrize(
    ("rules", "layers", "ignored"),
    [
        (["VG101"], [], True),
        (["vg1"], [], True),
        (["vanishing-gradient"], ["layers.*"], True),
        (["VG101"], ["layers.0", "layers.2", "layers.4"], True),
        (["VG101"], ["layers.0"], False),
        (["VG302"], [], False),
    ],
)
def test_an_ignore_covers_all_places_of_a_finding_or_none(
    rules, layers, ignored
) -> None:
    entry = Ignore(rules=tuple(rules), layers=tuple(layers), reason="known")
    report = gated(judge(SICK), terms(ignores=(entry,)))

    assert ([], 0) == (codes(report), report.exit_code) or not ignored
    assert ignored == bool(report.suppressed)
    if ignored:
        assert ("ignore", "known") == (
            report.suppressed[0].by,
            report.suppressed[0].reason,
        )


def test_an_ignore_ends_with_its_day() -> None:
    def decided(day: datetime.date) -> Report:
        entry = Ignore(rules=("VG101",), reason="known", expires=TODAY)
        agreement = Agreement(ignores=(entry,), today=day)
        return decide({"net": judge(SICK)}, agreement, {}).entries[0].report

    assert [] == codes(decided(TODAY))
    after = decided(TODAY + datetime.timedelta(days=1))
    assert {"VG101", "VG903"} == set(codes(after))
    assert 1 == after.exit_code


def test_an_ignore_that_one_target_needs_is_not_stale() -> None:
    entry = Ignore(rules=("VG101",), reason="known")
    agreement = Agreement(ignores=(entry,), today=TODAY)
    both = decide({"a": judge(chain()), "b": judge(SICK)}, agreement, {})
    alone = decide({"a": judge(chain()), "c": judge(chain())}, agreement, {})

    assert [[], []] == [codes(x.report) for x in both.entries]
    assert [["VG903"], []] == [codes(x.report) for x in alone.entries]


def test_nobody_calls_an_ignore_stale_where_a_target_failed() -> None:
    entry = Ignore(rules=("VG101",), reason="known")
    agreement = Agreement(ignores=(entry,), today=TODAY)
    lost = failed(BadConfig("x"))
    suite = decide({"a": judge(chain()), "b": lost}, agreement, {})

    assert [] == codes(suite.entries[0].report)
    assert 2 == suite.exit_code


def test_an_ignore_of_an_unknown_rule_is_refused() -> None:
    entry = Ignore(rules=("VG999",), reason="known")

    with pytest.raises(BadConfig, match="unknown rule 'VG999'"):
        decide({}, Agreement(ignores=(entry,)), {})


# --- baseline


def test_known_findings_do_not_count_and_worse_ones_do() -> None:
    before = known(judge(SICK))
    same = gated(judge(SICK), terms(known=before))
    milder = replace(before, findings=(replace(before.findings[0], level="warning"),))
    worse = gated(judge(SICK), terms(known=milder))

    assert ([], "pass", ["baseline"]) == (
        codes(same),
        same.status,
        [x.by for x in same.suppressed],
    )
    assert {"VG101", "VG901"} == set(codes(worse))


def test_what_is_new_is_named_once() -> None:
    report = gated(judge(SICK), terms(known=known(judge(chain()))))
    new = [f for f in report.findings if f.code == "VG901"]

    assert {"findings", "decades"} == {finding.unit for finding in new}
    assert any("1 new finding since the baseline: VG101" in f.message for f in new)


def test_a_baseline_keeps_no_finding_of_the_gate() -> None:
    budget = Budget(metric="attenuation", limit=-0.1)
    report = gated(judge(SICK), terms(budgets=(budget,)))

    assert {"VG101", "VG902"} == set(codes(report))
    assert ["VG101"] == [finding.code for finding in known(report).findings]


@pytest.mark.parametrize("spread", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("change", [-0.1, -0.5, -1.1, -2.0, 1.0])
def test_a_figure_regresses_beyond_the_noise_only(spread, change) -> None:
    """The rule of the manual: more than √(h₁² + h₂²) and than the least change."""
    rule = Regression()
    audit = having(chain(), attenuation=around(-0.9, spread=spread))
    moved = having(chain(), attenuation=around(-0.9 + change, spread=spread))
    report = Report(status="pass", exit_code=0, command="", audit=moved)
    before = known(Report(status="pass", exit_code=0, command="", audit=audit))
    found = [f.message for f in rule.decide(report, terms(known=before))]

    expected = -change > max(math.hypot(spread, spread), rule.decades)
    assert expected == any(text.startswith("attenuation ") for text in found)


def test_a_single_batch_tells_no_noise() -> None:
    rule, figure = Regression(), METRICS["attenuation"]
    one = Interval(value=-1.0, lo=-1.0, hi=-1.0, n=1)

    assert rule.single == rule.noise(figure, one, around(-1.0))
    assert rule.decades == rule.noise(figure, around(-1.0), around(-1.0))


def test_a_regression_names_the_layer_where_it_happens() -> None:
    before = known(judge(chain([-0.9, -0.7, -0.5, -0.4, -0.2, 0.0])))
    after = chain([-2.9, -2.7, -2.5, -0.4, -0.2, 0.0])
    report = gated(judge(after), terms(known=before))
    (finding,) = [f for f in report.findings if f.unit == "decades"]

    assert "layers.4" == finding.layer
    assert "−2.0 decades of it at layers.4" == finding.evidence[0]


def test_improvement_is_no_regression() -> None:
    assert [] == codes(gated(judge(chain()), terms(known=known(judge(SICK)))))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (loaded(chain(), architecture="Other"), "architecture Net there, Other here"),
        (having(chain(), mode="eval"), "mode train there, eval here"),
    ],
)
def test_a_foreign_baseline_is_refused(changed, words) -> None:
    agreement = Agreement(known={"net": known(judge(chain()))}, today=TODAY)
    reports = {"net": Report(status="pass", exit_code=0, command="", audit=changed)}

    with pytest.raises(BadConfig, match="another model's") as caught:
        decide(reports, agreement, {})
    assert words in caught.value.message


def test_a_baseline_of_other_layers_is_foreign() -> None:
    other = known(judge(chain()))
    renamed = replace(other, layers={f"x.{key}": v for key, v in other.layers.items()})
    agreement = Agreement(known={"net": renamed}, today=TODAY)

    with pytest.raises(BadConfig, match="0 of its 6 weight layers are here"):
        decide({"net": judge(chain())}, agreement, {})


# --- budgets


def test_a_target_replaces_the_budget_of_all() -> None:
    agreement = Agreement(
        budgets={
            "": (Budget(metric="attenuation", limit=-0.1),),
            "b": (Budget(metric="attenuation", limit=-2.0, level="warning"),),
        },
        today=TODAY,
    )
    suite = decide({"a": judge(chain()), "b": judge(chain())}, agreement, {})

    assert [["VG902"], []] == [codes(entry.report) for entry in suite.entries]
    assert 1 == suite.exit_code


def test_every_metric_reads_what_it_says() -> None:
    audit = activation(chain(), "layers.1", saturated_low=0.3, saturated_high=0.1)
    audit = layer(audit, "layers.2", zero_gradient=True)
    found = readings(audit)

    assert -0.9 == found["attenuation"].figure.value
    assert 0.0 == found["growth"].figure.value
    assert math.isclose(-0.9 / 5, found["decades-per-layer"].figure.value)
    assert math.isclose(0.4, found["saturated-share"].figure.value)
    assert "layers.1" == found["saturated-share"].layer
    assert 1.0 == found["zero-gradient-layers"].figure.value
    assert "dead-units" not in found
    assert "dead-units" in readings(chain(kind="relu"))


# --- verdicts


def test_suppressing_everything_does_not_make_a_measurement() -> None:
    entry = Ignore(rules=("VG",), reason="all of it")
    empty = gated(judge(chain((0.0,))), terms(ignores=(entry,)))

    assert ("inconclusive", 4) == (empty.status, empty.exit_code)


def test_judging_again_keeps_the_limits_of_the_report() -> None:
    report = judge(SICK, Policy(overrides={"vanishing-gradient.sgd_error": -12.0}))

    assert "VG101" not in codes(judged_again(report, Policy()))
    strict = Policy(overrides={"VG101.sgd_error": -3.0})
    assert "VG101" in codes(judged_again(report, strict))


def test_a_finding_of_another_place_is_new() -> None:
    (one,) = judge(SICK).findings
    elsewhere = Finding(**{**_fields(one), "layer": "x", "layers": ("x",)})
    before = replace(known(judge(SICK)), findings=(elsewhere,))

    assert "VG101" in codes(gated(judge(SICK), terms(known=before)))


def _fields(finding: Finding) -> dict:
    return {f.name: getattr(finding, f.name) for f in dataclasses.fields(finding)}
