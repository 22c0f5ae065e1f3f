"""The verdict: status, exit code, order, selection, thresholds."""

from __future__ import annotations

import pytest

from vgaudit.errors import BadConfig, CannotRun, NothingMeasured
from vgaudit.findings import LEVELS
from vgaudit.judge import Policy, failed, judge
from vgaudit.rules import RULES
from vgaudit.rules.examples import (
    activation,
    around,
    chain,
    having,
    layer,
    loaded,
    parameter,
)
from vgaudit.rules.gate import GATE_RULES
from vgaudit.rules.selection import find, parse_overrides, selected

SICK = chain((-9.6, -8.0, -6.1, -4.0, -2.0, 0.0))
WARNED = chain((-2.5, -2.0, -1.5, -1.0, -0.5, 0.0))


def codes(report) -> list[str]:
    return [finding.code for finding in report.findings]


def test_a_healthy_net_passes_without_a_word() -> None:
    report = judge(chain())

    assert ("pass", 0, []) == (report.status, report.exit_code, codes(report))


def test_a_sick_net_fails() -> None:
    report = judge(SICK)

    assert ("fail", 1, ["VG101"]) == (report.status, report.exit_code, codes(report))


@pytest.mark.parametrize(
    ("fail_on", "status", "code"),
    [
        ("error", "pass", 0),
        ("warning", "fail", 1),
        ("info", "fail", 1),
        ("never", "pass", 0),
    ],
)
def test_fail_on_decides_over_a_warning(fail_on, status, code) -> None:
    report = judge(WARNED, Policy(fail_on=fail_on))

    assert (status, code, ["VG102"]) == (report.status, report.exit_code, codes(report))


def test_exit_zero_changes_only_the_failed_gate() -> None:
    assert ("fail", 0) == (
        judge(SICK, Policy(exit_zero=True)).status,
        judge(SICK, Policy(exit_zero=True)).exit_code,
    )
    assert 4 == judge(chain((0.0,)), Policy(exit_zero=True)).exit_code


def test_one_layer_is_nothing_to_compare() -> None:
    report = judge(chain((0.0,)))

    assert ("inconclusive", 4) == (report.status, report.exit_code)
    assert (
        "inconclusive: nothing to compare, only one weight layer has a gradient",
    ) == report.warnings


def test_no_layer_is_nothing_to_compare() -> None:
    report = judge(having(chain(), layers=(), trunk=(), attenuation=None))

    assert ("inconclusive", 4) == (report.status, report.exit_code)
    assert (
        "inconclusive: nothing to compare, no weight layer has a gradient",
    ) == report.warnings


def test_uncalibrated_figures_are_no_verdict() -> None:
    report = judge(having(SICK, mode="eval", uncalibrated=("bn",)))

    assert ("inconclusive", 4) == (report.status, report.exit_code)
    assert ["VG004"] == codes(report)


def test_uncalibrated_is_inconclusive_under_every_gate() -> None:
    audit = having(chain(), uncalibrated=("bn",))

    for fail_on in ("error", "warning", "info", "never"):
        assert 4 == judge(audit, Policy(fail_on=fail_on)).exit_code
    assert 4 == judge(audit, Policy(ignore=("VG004",))).exit_code


def test_what_needs_no_figures_is_judged_all_the_same() -> None:
    audit = loaded(
        having(chain(), uncalibrated=("bn",)), nonfinite_weights=("layers.0.weight",)
    )
    report = judge(audit)

    assert ("fail", 1) == (report.status, report.exit_code)
    assert ["VG001", "VG004"] == codes(report)


def test_lost_gradient_implies_the_lesser_statements() -> None:
    audit = parameter(
        chain((-9.0, -7.2, -5.4, -3.6, -1.8, 0.0)),
        "layers.0.weight",
        grad_to_weight=1e-12,
    )

    assert ["VG101"] == codes(judge(audit))
    # An ignored finding is still true, so what it implies stays unsaid.
    assert [] == codes(judge(audit, Policy(ignore=("VG101",))))
    assert "pass" == judge(audit, Policy(ignore=("VG101",))).status


def test_errors_come_first_then_the_place() -> None:
    audit = activation(SICK, "layers.9", saturated_high=0.6)
    audit = activation(audit, "layers.3", saturated_high=0.9)
    audit = layer(audit, "layers.4", zero_gradient=True)
    report = judge(audit)
    levels = [LEVELS.index(finding.level) for finding in report.findings]

    assert sorted(levels) == levels
    assert ["VG101", "VG301", "VG103", "VG301"] == codes(report)


def test_the_optimizer_decides() -> None:
    relu10 = chain((-4.0, -3.0, -2.0, -1.0, 0.0), kind="relu")

    assert "fail" == judge(relu10, Policy(optimizer="sgd")).status
    assert "pass" == judge(relu10, Policy(optimizer="adam")).status


@pytest.mark.parametrize(
    ("field", "given", "hint"),
    [
        ("optimizer", "adamw", "did you mean adam? give one of sgd, adam"),
        ("optimizer", "SGD", "did you mean sgd? give one of sgd, adam"),
        ("optimizer", "banana", "give one of sgd, adam"),
        ("fail_on", "eror", "did you mean error? "),
        ("select", "VG101", "give a tuple of texts"),
        ("exit_zero", "no", "give True or False"),
    ],
)
def test_a_policy_that_says_nothing_known_is_refused(field, given, hint) -> None:
    policy = Policy(**{field: given})

    for refusing in (policy.check, lambda: judge(SICK, policy)):
        with pytest.raises(BadConfig, match=f"{field} is '{given}'") as caught:
            refusing()

        assert str(caught.value.hint).startswith(hint)


def test_a_threshold_can_be_set_by_name_or_code() -> None:
    for name in ("vanishing-gradient.sgd_error", "VG101.sgd_error"):
        report = judge(SICK, Policy(overrides={name: -10.0}))

        assert "VG101" not in codes(report)
        assert -10.0 == report.thresholds["vanishing-gradient.sgd_error"]


def test_the_report_states_every_threshold() -> None:
    stated = judge(chain()).thresholds

    assert -3.6 == stated["vanishing-gradient.sgd_error"]
    assert {name.partition(".")[0] for name in stated} <= {rule.name for rule in RULES}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(CannotRun("x"), "error", 3), (NothingMeasured("x"), "inconclusive", 4)],
)
def test_a_run_that_ended_early_has_a_report_too(error, status, code) -> None:
    report = failed(error)

    assert (status, code) == (report.status, report.exit_code)
    assert ({**error.to_dict()},) == report.errors


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("VG101", ["VG101"]),
        ("vg101", ["VG101"]),
        ("vanishing-gradient", ["VG101"]),
        ("VG20", ["VG201", "VG202", "VG203", "VG204"]),
        (" VG3 ", ["VG301", "VG302", "VG303"]),
        ("VG", [rule.code for rule in (*RULES, *GATE_RULES)]),
    ],
)
def test_selectors(selector: str, found: list[str]) -> None:
    assert found == [rule.code for rule in find(selector)]


def test_select_then_ignore() -> None:
    gate = {rule.code for rule in GATE_RULES}

    assert {"VG101", "VG107"} | gate == selected(
        ["VG10"], ["VG102", "VG103", "VG104", "VG105", "VG106", "VG108"]
    )
    assert {"VG101", "VG902"} == selected(["VG101"], ["VG901", "stale-ignore"])
    assert len(RULES) + len(gate) - 1 == len(selected([], ["dead-units"]))


@pytest.mark.parametrize(
    ("selector", "message", "hint"),
    [
        ("VG12", "unknown rule 'VG12'", "did you mean VG102? see `vgaudit rules`"),
        (
            "vanishing-gradent",
            "unknown rule 'vanishing-gradent'",
            "did you mean vanishing-gradient? see `vgaudit rules`",
        ),
        ("", "unknown rule ''", "see `vgaudit rules`"),
        ("V", "unknown rule 'V'", "see `vgaudit rules`"),
        ("\x1b[2J", "unknown rule '\\x1b[2J'", "see `vgaudit rules`"),
    ],
)
def test_an_unknown_selector_names_the_nearest(selector, message, hint) -> None:
    with pytest.raises(BadConfig) as caught:
        find(selector)

    assert (message, hint) == (caught.value.message, caught.value.hint)


@pytest.mark.parametrize(
    ("name", "value", "message", "hint"),
    [
        (
            "VG101.sgd_eror",
            -1.0,
            "VG101 vanishing-gradient has no threshold 'sgd_eror'",
            "did you mean sgd_error? it has: sgd_error, sgd_rectified_error, "
            "sgd_centred_error, shared_error, adam_warning, adam_error, "
            "adam_offset_error, adam_shared_error, offset, small_error, small_step, "
            "small_share, branch_layers, collapse",
        ),
        (
            "VG001.limit",
            1.0,
            "VG001 nonfinite-weight has no threshold 'limit'",
            "it has: none",
        ),
        (
            "VG302.units",
            1.5,
            "VG302.units counts things: 1.5 is not a whole number",
            "for example --set VG302.units=8",
        ),
        (
            "VG3.units",
            4.0,
            "'VG3' names 3 rules, and --set needs one",
            "for example --set VG301.NAME=NUMBER",
        ),
    ],
)
def test_an_impossible_threshold_is_refused(name, value, message, hint) -> None:
    with pytest.raises(BadConfig) as caught:
        Policy(overrides={name: value}).check()

    assert (message, hint) == (caught.value.message, caught.value.hint)


@pytest.mark.parametrize(
    "text", ["VG101", "VG101=3", "VG101.x=nan", "VG101.x=", "=1", "a.b=inf"]
)
def test_a_malformed_override_is_refused(text: str) -> None:
    with pytest.raises(BadConfig) as caught:
        parse_overrides([text])

    assert (
        f"--set {text}: not of the form RULE.THRESHOLD=NUMBER" == caught.value.message
    )


def test_an_interval_that_touches_the_limit_stays_unclear() -> None:
    audit = having(chain((-3.8, -1.0, 0.0)), attenuation=around(-3.8, spread=0.2))
    report = judge(audit)

    assert ("pass", ["VG101"]) == (report.status, codes(report))
    assert report.findings[0].unclear
