"""Comparisons of reports that were made by hand."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from tests.reports_html.reading import read
from vgaudit.compare import Comparison, compare
from vgaudit.findings import Finding, Level, Report
from vgaudit.flow import GateFlow, Interval
from vgaudit.reports.archive import archived
from vgaudit.reports.comparison import render
from vgaudit.reports.json import render as to_json
from vgaudit.rules.examples import activation, chain, having
from vgaudit.rules.through_time import reader


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


LEVELS: tuple[Level, ...] = ("error", "warning", "info")
# By hand: what the level of one kept finding, from each row to each column, means.
# A rise counts as a new finding, a fall as a gone one; infos decide nothing.
KEPT = {
    ("error", "error"): "same",
    ("error", "warning"): "better",
    ("error", "info"): "better",
    ("warning", "error"): "worse",
    ("warning", "warning"): "same",
    ("warning", "info"): "better",
    ("info", "error"): "worse",
    ("info", "warning"): "worse",
    ("info", "info"): "same",
}


@pytest.mark.parametrize(("before", "after"), KEPT)
def test_a_kept_finding_of_another_level_counts(before: Level, after: Level) -> None:
    old, new = finding("VG108", before, "r"), finding("VG108", after, "r")
    found = compare(report(old), report(new))

    assert (found.gone, found.new, found.kept) == ((), (), (new,))
    assert found.kept_from == (before,)
    assert found.verdict == KEPT[before, after]
    moved = {"worse": found.risen, "better": found.fallen}
    for verdict, findings in moved.items():
        expected = ((before, new),) if found.verdict == verdict else ()
        assert findings == expected
    assert found.steady == (() if found.risen or found.fallen else (new,))


def test_a_rise_beside_a_gone_error_is_mixed() -> None:
    risen = finding("VG108", "error", "r")
    found = compare(report(A, finding("VG108", "info", "r")), report(risen))

    assert found.verdict == "mixed"


def test_the_level_before_follows_its_finding_whatever_the_order() -> None:
    old = [finding(f"VG10{i}", level, "a") for i, level in enumerate(LEVELS)]
    new = [finding(f"VG10{i}", "warning", "a") for i in (2, 0, 1)]
    found = compare(report(*old), report(*new))

    assert [f.code for f in found.kept] == ["VG102", "VG100", "VG101"]
    assert found.kept_from == ("info", "error", "warning")
    assert [f.code for _, f in found.risen] == ["VG102"]
    assert [f.code for _, f in found.fallen] == ["VG100"]


def test_every_format_shows_the_change_of_level() -> None:
    steady = finding("VG301", "warning", "c")
    old = (finding("VG108", "info", "r"), steady)
    found = compare(report(*old), report(finding("VG108", "error", "r"), steady))
    text = render(found, form="text", top=1)
    page = read(render(found, form="html"))
    record = json.loads(render(found, form="json"))["comparison"]

    said = "worse: 0 findings gone, 0 findings new, 2 findings kept, 1 of them graver"
    assert said in text
    # The changed one comes first, whatever --top hides.
    assert "  kept  error    VG108 name-VG108  r  (info → error)\n" in text
    assert "  kept  … and 1 more" in text
    titles = [x.text for x in page.every("h2")]
    assert "Findings that are graver" in titles
    assert "Findings that stayed" in titles
    labels = [x.text for x in page.every("span", "level")]
    assert labels == ["info → error", "warning"]
    before = dict(
        zip([f["code"] for f in record["kept"]], record["kept_from"], strict=True)
    )
    assert before == {"VG108": "info", "VG301": "warning"}


def test_archived_comparisons_that_know_no_levels_before_still_open() -> None:
    found = compare(report(A), report(A))
    record = json.loads(render(found, form="json"))
    del record["comparison"]["kept_from"]
    opened = archived(json.dumps(record))

    assert opened is not None
    assert "same: 0 findings gone, 0 findings new, 1 finding kept\n" in opened.render(
        "text", 20
    )


@pytest.mark.parametrize(("before", "code"), [("info", 1), ("error", 0)])
def test_a_finding_that_rose_fails_the_comparison(cli, tmp_path, before, code) -> None:
    for name, level in (("a", before), ("b", "error")):
        text = to_json(report(finding("VG108", level, "r")))
        (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
    done = cli("compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"))

    assert done.code == code, done.err


def gated(*gates: GateFlow) -> Report:
    """A report on a net with one recurrent layer of the given gates."""
    audit = reader(-0.1)
    (cell,) = audit.flow.recurrences
    cell = dataclasses.replace(cell, gates=gates)
    return dataclasses.replace(report(), audit=having(audit, recurrences=(cell,)))


def gate(name: str, low: float, high: float, *, kind: str = "sigmoid") -> GateFlow:
    return GateFlow(
        name=name, kind=kind, mean=0.0, saturated_low=low, saturated_high=high
    )


def rows(found: Comparison) -> dict[str, list[str]]:
    """What HTML shows, row by row, once text shows the same."""
    page = read(render(found, form="html"))
    (table,) = (
        x
        for x in page.every("table")
        if x.attributes["aria-label"] == "Before and after"
    )
    cells = {label: values for label, *values in table.rows()}
    text = render(found, form="text").splitlines()
    for label in [x for x in cells if x.startswith("most saturated")]:
        (line,) = [x for x in text if x.startswith(label)]
        assert line.removeprefix(label).split() == " ".join(cells[label]).split()
    return cells


def test_gates_of_recurrent_layers_have_a_row_of_their_own() -> None:
    before = gated(gate("forget", 0.1, 0.2), gate("output", 0.0, 0.25))
    after = gated(gate("forget", 0.1, 0.2), gate("output", 0.9, 0.04))
    found = compare(before, after)

    # By hand: the larger of 0.1 + 0.2 and 0.25; the larger of 0.3 and 0.94.
    assert found.before.saturated_gate == pytest.approx(0.3)
    assert found.after.saturated_gate == pytest.approx(0.94)
    assert rows(found)["most saturated gate"] == ["30 %", "94 %"]


def test_the_state_of_a_plain_recurrent_layer_is_an_activation() -> None:
    plain = gated(gate("state", 0.5, 0.42, kind="tanh"))
    relu = gated(gate("state", 1.0, 0.0, kind="relu"))
    found = compare(relu, plain)

    assert found.after.saturated == pytest.approx(0.92)
    assert (found.before.saturated_gate, found.after.saturated_gate) == (None, None)
    # A ReLU that is off has no rails: without it, what the net has besides.
    assert found.before.saturated == compare(gated(), relu).before.saturated
    assert "most saturated gate" not in rows(found)


def test_activations_that_multiply_are_gates() -> None:
    audit = activation(chain(), "layers.5", saturated_low=0.8, gate=True)
    found = compare(dataclasses.replace(report(), audit=audit), report())

    assert found.before.saturated_gate is not None
    assert found.before.saturated_gate >= 0.8
    assert found.before.saturated is None or found.before.saturated < 0.8
    assert found.after.saturated_gate is None
    assert rows(found)["most saturated gate"][1] == "–"
