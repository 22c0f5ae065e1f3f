"""The JSON report: strict, complete, valid against its schema, and read back whole."""

from __future__ import annotations

import json
import math

import jsonschema
import pytest

from vgaudit.errors import CannotLoad, CannotRun
from vgaudit.findings import Report
from vgaudit.judge import failed, judge
from vgaudit.plain import to_plain
from vgaudit.reports.json import SCHEMA_VERSION, parse, parse_audit, render, schema
from vgaudit.rules import RULES
from vgaudit.rules.examples import around, chain, having, loaded

AUDITS = [
    pytest.param(example.audit, id=f"{rule.code}-{example.shows}")
    for rule in RULES
    for example in (*rule.FIRES, *rule.QUIET)
    if not any(
        math.isnan(x.value) for x in [example.audit.flow.attenuation or around(0.0)]
    )
]
SCHEMA = jsonschema.Draft202012Validator(json.loads(schema()))


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def load(text: str):
    return json.loads(text, parse_constant=no_constant)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(schema()))


@pytest.mark.parametrize("audit", AUDITS)
def test_a_report_survives_the_way_there_and_back(audit) -> None:
    report = judge(audit)
    text = render(report)

    SCHEMA.validate(load(text))
    assert report == parse(text)


@pytest.mark.parametrize("audit", AUDITS[:3])
def test_an_audit_survives_the_pipe(audit) -> None:
    assert audit == parse_audit(json.loads(json.dumps(to_plain(audit))))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_cannot_spell_are_strings(value: float) -> None:
    text = render(judge(having(chain(), attenuation=around(value))))
    record = load(text)

    SCHEMA.validate(record)
    assert str(value) == record["audit"]["flow"]["attenuation"]["value"]
    back = parse(text).audit.flow.attenuation.value
    assert str(value) == str(back)


def test_a_failure_is_the_same_document() -> None:
    report = failed(CannotRun("layer x failed", hint="look at x"))
    record = load(render(report))

    SCHEMA.validate(record)
    assert "error" == record["status"]
    assert [
        {
            "code": "CannotRun",
            "message": "layer x failed",
            "hint": "look at x",
            "exit_code": 3,
        }
    ] == record["errors"]
    assert report == parse(render(report))


def test_the_summary_agrees_with_the_figures() -> None:
    record = load(render(judge(chain((-9.6, -8.0, -6.1, -4.0, -2.0, 0.0)))))

    assert -9.6 == record["summary"]["attenuation_decades"]["value"]
    assert -1.92 == pytest.approx(record["summary"]["decades_per_layer"])
    gains = {s["name"]: s["gain"]["value"] for s in record["audit"]["flow"]["trunk"]}
    assert min(gains.values()) == record["summary"]["worst_step"]["gain"]
    levels = [finding["level"] for finding in record["findings"]]
    for level, n in record["summary"]["findings"].items():
        assert levels.count(level) == n


def test_a_fingerprint_is_of_code_and_place_only() -> None:
    def prints(*decades: float) -> list[str]:
        record = load(render(judge(chain(decades))))
        return [finding["fingerprint"] for finding in record["findings"]]

    assert prints(-9.6, -1.0, 0.0) == prints(-5.0, -2.0, 0.0)
    assert prints(-9.6, -1.0, 0.0) != prints(-9.6, -8.0, 0.0)


def test_hostile_names_stay_inside_their_strings() -> None:
    name = '</script>\x00\x1b]0;"},{"a":"\udcff\u2028'
    record = load(render(judge(loaded(chain(), nonfinite_weights=(name,)))))

    shown = record["audit"]["target"]["nonfinite_weights"]
    assert [name.replace("\udcff", "\\udcff")] == shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a JSON report: Expecting value: line 1 column 1 (char 0)"),
        ("[]", "not a JSON report: a list and no object"),
        ("[" * 100_000, "not a JSON report: maximum recursion depth exceeded"),
        ("{}", "not a report that this version reads: schema_version missing"),
        (
            '{"schema_version": "2.0"}',
            "not a report that this version reads: schema_version 2.0",
        ),
        ('{"schema_version": "1.0"}', "not a vgaudit report: status: Field required"),
    ],
)
def test_what_is_no_report_is_refused(text: str, message: str) -> None:
    with pytest.raises(CannotLoad) as caught:
        parse(text)

    assert caught.value.message.startswith(message)
    assert caught.value.hint


def test_a_field_of_a_later_minor_version_is_passed_over() -> None:
    record = load(render(judge(chain())))
    record["schema_version"] = SCHEMA_VERSION.partition(".")[0] + ".9"
    record["new_field"] = {"a": 1}
    record["audit"]["flow"]["new_figure"] = 1.5

    assert isinstance(parse(json.dumps(record)), Report)


def test_a_wrong_figure_is_named() -> None:
    record = load(render(judge(chain())))
    record["audit"]["flow"]["attenuation"]["value"] = "much"

    with pytest.raises(CannotLoad, match=r"audit\.flow\.attenuation\.value: "):
        parse(json.dumps(record))
