"""Comparisons of reports that were made by hand."""

from __future__ import annotations

import dataclasses
import json
import math

from vgaudit.compare import compare
from vgaudit.findings import Finding, Level, Report
from vgaudit.flow import Interval
from vgaudit.reports.comparison import render
from vgaudit.rules.examples import activation, chain


def finding(code: str, level: Level, *layers: str) -> Finding:
    place = layers[0] if len(layers) == 1 else " … ".join(layers)
    return Finding(
        code=code,
        name=f"name-{code}",
        level=level,
        message="…",
        layer=place,
        layers=layers,
    )


def report(
    *findings: Finding, status: str = "fail", attenuation: float = -5.0
) -> Report:
    audit = activation(chain(), "layers.5", saturated_low=0.2, saturated_high=0.1)
    interval = Interval(value=attenuation, lo=attenuation, hi=attenuation, n=1)
    flow = dataclasses.replace(audit.flow, attenuation=interval)
    audit = dataclasses.replace(audit, flow=flow)
    return Report(
        status=status,  # type: ignore[arg-type]
        exit_code=0,
        command="",
        audit=audit,
        findings=findings,
    )


A = finding("VG101", "error", "a", "b")
B = finding("VG301", "warning", "c")
C = finding("VG302", "error", "d")


def test_findings_are_gone_new_or_kept() -> None:
    found = compare(report(A, B), report(B, C))
    assert (found.gone, found.new, found.kept) == ((A,), (C,), (B,))
    assert found.verdict == "mixed"


def test_a_range_that_shrank_is_the_same_finding() -> None:
    smaller = finding("VG101", "error", "b")
    found = compare(report(A), report(smaller))
    assert (found.gone, found.new, found.kept) == ((), (), (smaller,))
    assert found.verdict == "same"


def test_another_code_at_the_same_place_is_another_finding() -> None:
    other = finding("VG102", "error", "a", "b")
    found = compare(report(A), report(other))
    assert (found.gone, found.new) == ((A,), (other,))


def test_verdicts() -> None:
    assert compare(report(A), report()).verdict == "better"
    assert compare(report(), report(A)).verdict == "worse"
    assert compare(report(B), report()).verdict == "better"
    assert compare(report(A), report(B)).verdict == "better"
    assert compare(report(), report()).verdict == "same"
    note = finding("VG502", "info", "a")
    assert compare(report(), report(note)).verdict == "same"


def test_healthy_is_a_pass_without_warnings() -> None:
    assert compare(report(status="pass"), report()).healthy
    assert not compare(report(B, status="pass"), report()).healthy
    assert not compare(report(status="inconclusive"), report()).healthy


def test_figures() -> None:
    before = report(attenuation=-5.0)
    assert before.audit is not None
    values = [
        layer.attenuation.value
        for layer in before.audit.flow.layers
        if layer.weighted and layer.attenuation is not None
    ]
    found = compare(before, report(attenuation=-1.0))
    assert (found.before.attenuation, found.after.attenuation) == (-5.0, -1.0)
    assert found.before.spread == max(values) - min(values)
    assert found.before.saturated is not None
    assert math.isclose(found.before.saturated, 0.3)


def test_a_zero_gradient_makes_the_spread_infinite() -> None:
    before = report()
    assert before.audit is not None
    layers = tuple(
        dataclasses.replace(layer, zero_gradient=layer.weighted)
        for layer in before.audit.flow.layers
    )
    flow = dataclasses.replace(before.audit.flow, layers=layers)
    audit = dataclasses.replace(before.audit, flow=flow)
    found = compare(dataclasses.replace(before, audit=audit), report())
    assert found.before.spread == math.inf
    record = json.loads(render(found, form="json"))
    assert record["comparison"]["before"]["spread"] == "inf"


def test_text_names_what_is_gone_and_hides_nothing_hostile() -> None:
    evil = finding("VG101", "error", "a\x1b[31m")
    text = render(compare(report(evil), report(C)), form="text")
    assert "gone  error    VG101 name-VG101" in text
    assert "new   error    VG302" in text
    assert "\x1b" not in text


def test_a_failed_run_compares_without_figures() -> None:
    failed = Report(status="error", exit_code=3, command="")
    found = compare(failed, report(A))
    assert found.before.attenuation is None
    assert found.new == (A,)
