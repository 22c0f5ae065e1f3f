"""Each format against its own specification, and against the report's counts."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from xml.etree import ElementTree

import jsonschema
import pytest

from tests.reports.examples import SICK, broken, sick, suite
from tests.reports.schemas import SARIF, schema
from vgaudit.findings import Suppressed
from vgaudit.flow import Source
from vgaudit.judge import judge
from vgaudit.reports import REPORTS, SUITES
from vgaudit.reports.csv import COLUMNS
from vgaudit.reports.escaping import inert, markdown
from vgaudit.reports.place import place
from vgaudit.rules import RULES
from vgaudit.rules.examples import chain, loaded


def many(count: int, level: str = "error"):
    """Returns a report with that many findings."""
    report = sick()
    one = replace(report.findings[0], level=level)
    found = tuple(replace(one, layer=f"layers.{i}") for i in range(count))
    return replace(report, findings=found)


# --- SARIF


def log(*reports) -> dict:
    record = json.loads(SUITES["sarif"](suite(*reports)))
    jsonschema.Draft7Validator(schema(SARIF)).validate(record)
    return record


def test_the_validator_refuses_what_is_no_sarif() -> None:
    record = json.loads(REPORTS["sarif"](sick()))
    record["runs"][0]["results"][0]["levle"] = "error"

    with pytest.raises(jsonschema.ValidationError, match="levle"):
        jsonschema.Draft7Validator(schema(SARIF)).validate(record)


def test_sarif_has_a_run_for_each_target_with_an_id_of_its_own() -> None:
    runs = log(sick(), judge(chain()), broken())["runs"]

    assert ["vgaudit/a/", "vgaudit/b/", "vgaudit/c/"] == [
        run["automationDetails"]["id"] for run in runs
    ]
    assert [True, True, False] == [
        run["invocations"][0]["executionSuccessful"] for run in runs
    ]
    assert [1, 0, 3] == [run["invocations"][0]["exitCode"] for run in runs]


def test_sarif_results_point_at_the_line_and_at_their_rule() -> None:
    finding = sick().findings[0]
    here = replace(finding, source=Source(file="/elsewhere/net.py", line=42))
    (run,) = log(replace(sick(), findings=(here,)))["runs"]
    (result,) = run["results"]
    place_of = result["locations"][0]
    physical = place_of["physicalLocation"]

    assert "VG101" == run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"]
    assert "/elsewhere/net.py" == physical["artifactLocation"]["uri"]
    assert 42 == physical["region"]["startLine"]
    assert finding.layer == place_of["logicalLocations"][0]["fullyQualifiedName"]


def test_sarif_fingerprints_stay_when_figures_move() -> None:
    def prints(report) -> list[str]:
        results = log(report)["runs"][0]["results"]
        return [result["partialFingerprints"]["vgaudit/v1"] for result in results]

    moved = judge(chain([-9.4, -7.2, -5.1, -3.0, -1.0, 0.0]))

    assert prints(judge(SICK)) == prints(moved)
    assert len(set(prints(many(50)))) == 50


def test_suppressed_findings_are_sarif_suppressions() -> None:
    (finding,) = sick().findings
    hidden = Suppressed(finding=finding, by="baseline", reason="known")
    report = replace(sick(), findings=(), suppressed=(hidden,))
    (result,) = log(report)["runs"][0]["results"]

    assert [
        {"kind": "external", "status": "accepted", "justification": "baseline: known"}
    ] == result["suppressions"]
    assert "suppressions" not in log(sick())["runs"][0]["results"][0]


def test_sarif_holds_five_thousand_results() -> None:
    assert 5000 == len(log(many(5100))["runs"][0]["results"])


# --- JUnit


def test_junit_counts_add_up() -> None:
    (finding,) = sick().findings
    hidden = Suppressed(finding=finding, by="ignore", reason="known")
    warned = replace(finding, level="warning")
    report = replace(sick(), findings=(finding, warned), suppressed=(hidden,))
    root = ElementTree.fromstring(SUITES["junit"](suite(report, broken())))

    for node in (root, *root.findall("testsuite")):
        cases = list(node.iter("testcase"))
        assert len(cases) == int(node.get("tests"))
        assert len(list(node.iter("failure"))) == int(node.get("failures"))
        assert len(list(node.iter("error"))) == int(node.get("errors"))
        assert len(list(node.iter("skipped"))) == int(node.get("skipped"))
    assert ("1", "1", "1") == tuple(
        root.get(key) for key in ("failures", "errors", "skipped")
    )
    assert len(RULES) - 1 + 3 == len(root.findall("testsuite")[0])


def test_junit_fails_what_fails_the_gate() -> None:
    (finding,) = sick().findings
    report = replace(sick(), findings=(replace(finding, level="warning"),))
    strict = replace(report, fail_on="warning")

    def failures(given) -> str | None:
        return ElementTree.fromstring(REPORTS["junit"](given)).get("failures")

    assert ("0", "1") == (failures(report), failures(strict))


# --- GitHub


def test_github_shows_nine_and_counts_the_rest() -> None:
    found = (*many(20, "warning").findings, *many(3).findings)
    report = replace(sick(), findings=found)
    lines = REPORTS["github"](report).splitlines()

    assert 10 == len(lines)
    assert ["::error"] * 3 + ["::warning"] * 6 == [
        line.partition(" ")[0] for line in lines[:9]
    ]
    assert lines[-1].startswith("::error title=vgaudit::FAIL ")
    assert lines[-1].endswith("14 more findings not shown here")


def test_github_escapes_what_would_end_a_property() -> None:
    finding = replace(
        sick().findings[0], source=Source(file="/x/a,b:c%d.py", line=7), message="50 %"
    )
    line = REPORTS["github"](replace(sick(), findings=(finding,))).splitlines()[0]

    assert "file=/x/a%2Cb%3Ac%25d.py,line=7,title=VG101 vanishing-gradient::" in line
    assert "50 %25" in line


def test_github_says_that_all_is_well() -> None:
    (line,) = REPORTS["github"](judge(chain())).splitlines()

    assert line.startswith("::notice title=vgaudit::PASS ")


# --- CSV


def test_csv_is_the_layer_table() -> None:
    rows = list(csv.DictReader(io.StringIO(SUITES["csv"](suite(sick(), broken())))))
    layers = SICK.flow.layers

    assert list(COLUMNS) == list(rows[0])
    assert [layer.path for layer in layers] == [row["path"] for row in rows]
    assert ["VG101", ""] == [rows[0]["findings"], rows[-1]["findings"]]
    assert SICK.flow.parameters[0].grad_rms == float(rows[0]["grad_rms"])
    assert "-9.0" == rows[0]["attenuation_lo"]


# --- Markdown


def test_markdown_begins_with_the_verdict_and_stays_small() -> None:
    text = REPORTS["markdown"](many(10_000))
    lines = text.splitlines()

    assert lines[0].startswith("## FAIL: ")
    assert lines[2].startswith("**gradient lost: 9.0 decades")
    assert 30 == sum(line.startswith("| error |") for line in lines)
    assert "… and 9,970 more findings: see the JSON report." in lines
    assert len(text) <= 60_000


def test_markdown_of_many_targets_says_what_is_left_out() -> None:
    long = replace(many(40).findings[0], message="m" * 600)
    reports = [replace(sick(), findings=(long,) * 30) for _ in range(8)]
    text = SUITES["markdown"](suite(*reports, *reports[:0]))

    assert len(text) <= 60_000
    assert "## vgaudit: FAIL" == text.splitlines()[0]
    assert text.rstrip().endswith("more sections: see the JSON report.")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("9.0 decades", "9.0 decades"),
        ("1. item", r"1\. item"),
        ("- item", r"\- item"),
        ("a_b*c|d", r"a\_b\*c\|d"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("@team", "&#64;<!-- -->team"),
        ("[x](http://e)", r"\[x\](http&#58;//e)"),
    ],
)
def test_markdown_is_shown_as_it_is(text: str, shown: str) -> None:
    assert shown == markdown(text)


# --- all of them


def test_a_runner_finds_no_command() -> None:
    assert "a\n  : :error::x\nb # #[error]" == inert("a\n  ::error::x\nb ##[error]")


@pytest.mark.parametrize(
    ("spec", "file"),
    [
        ("torchvision:resnet18", "torchvision:resnet18"),
        ("net.py:factory", "net.py"),
        ("model.pt#ema", "model.pt"),
    ],
)
def test_a_finding_without_a_line_is_at_the_model(spec: str, file: str) -> None:
    (finding,) = sick().findings

    assert file == place(replace(finding, source=None), loaded(SICK, spec=spec)).file


def test_lines_are_relative_to_the_working_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = Source(file=str(tmp_path / "src" / "net.py"), line=3)
    finding = replace(sick().findings[0], source=source)

    assert ("src/net.py", 3) == (place(finding, SICK).file, place(finding, SICK).line)


@pytest.mark.parametrize("form", SUITES)
def test_a_suite_renders_what_failed_beside_what_passed(form: str) -> None:
    text = SUITES[form](suite(sick(), judge(chain()), broken("no such thing")))

    assert text.strip()
    if form != "csv":
        assert "no such thing" in text
