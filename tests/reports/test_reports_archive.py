"""Archived reports on changes: shown again in every format, and their scans."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.reports_html.test_reports_html_change import FOUND, SICK, WELL
from tests.reports_html.test_reports_html_change import conversion as converted
from tests.reports_html.test_reports_html_change import training as trained
from vgaudit.errors import CannotLoad
from vgaudit.reports import comparison, retraining
from vgaudit.reports.archive import archived
from vgaudit.reports.json import parse
from vgaudit.reports.json import render as scanned

CHANGES = {
    "training": lambda form: retraining.render(trained(), FOUND, form=form),
    "conversion": lambda form: comparison.render_conversion(
        converted(), FOUND, form=form
    ),
    "comparison": lambda form: comparison.render(FOUND, form=form),
}


@pytest.fixture
def training(tmp_path: Path) -> str:
    """The report of a training that made a sick net well."""
    place = tmp_path / "training.json"
    place.write_text(CHANGES["training"]("json"), encoding="utf-8")
    return str(place)


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("form", ["text", "json", "html"])
def test_an_archived_change_is_shown_as_it_was(cli, tmp_path, kind, form) -> None:
    place = tmp_path / "change.json"
    place.write_text(CHANGES[kind]("json"), encoding="utf-8")
    done = cli("report", str(place), "--to", form)

    assert done.code == 0, done.err
    assert done.out == CHANGES[kind](form)


def test_a_change_has_no_format_of_findings(cli, training) -> None:
    done = cli("report", training, "--to", "sarif")

    assert done.code == 2
    assert "the format sarif shows one scan, and no change" in done.err


def test_a_change_is_shown_alone(cli, training, tmp_path) -> None:
    scan = tmp_path / "scan.json"
    scan.write_text(scanned(WELL), encoding="utf-8")
    done = cli("report", str(scan), training)

    assert done.code == 2
    assert "is the report of a training, which is shown alone" in done.err


def test_a_training_is_compared_by_the_scans_it_holds(cli, training, tmp_path) -> None:
    def verdict(*specs: str) -> str:
        done = cli("compare", *specs, "--format", "json", "--exit-zero")
        assert done.code == 0, done.err
        return json.loads(done.out)["comparison"]["verdict"]

    sick = tmp_path / "sick.json"
    sick.write_text(scanned(SICK), encoding="utf-8")

    assert FOUND.verdict == "better"
    assert verdict(training, training) == "better"
    assert verdict(f"{training}#before", training) == "better"
    assert verdict(f"{training}#after", f"{training}#before") == "worse"
    assert verdict(str(sick), training) == "better"
    assert verdict(str(sick), f"{training}#before") == "same"


def test_a_report_of_one_scan_has_no_parts(cli, tmp_path) -> None:
    sick = tmp_path / "sick.json"
    sick.write_text(scanned(SICK), encoding="utf-8")
    done = cli("compare", f"{sick}#before", str(sick))

    assert done.code == 2
    assert "is the report of one scan and has no before" in done.err


def test_an_unfinished_training_has_no_scan_after_it() -> None:
    text = retraining.render(replace(trained(), after=None), None, form="json")
    found = archived(text)

    assert found is not None
    assert found.scan("before") == SICK.audit
    with pytest.raises(CannotLoad, match="a training holds no scan after it"):
        found.scan("after")


def test_what_is_no_change_is_left_to_others() -> None:
    assert archived(scanned(WELL)) is None
    assert archived("[]") is None
    assert archived("no json") is None


def test_a_changed_training_is_refused() -> None:
    record = json.loads(CHANGES["training"]("json"))
    record["retraining"]["metric"] = 3

    with pytest.raises(CannotLoad, match="not the report of a training: metric"):
        archived(json.dumps(record))
    with pytest.raises(CannotLoad, match="schema_version 9"):
        archived(json.dumps({**record, "schema_version": "9.0"}))


def test_a_training_is_named_where_a_scan_is_wanted() -> None:
    with pytest.raises(CannotLoad, match="the report of a training, not of a scan"):
        parse(CHANGES["training"]("json"))


@pytest.mark.parametrize("command", ["retrain", "convert", "compare", "fix"])
def test_help_lists_the_formats_that_a_change_has(cli, command: str) -> None:
    words = " ".join(cli(command, "--help").out.replace("│", " ").split())

    assert "sarif" not in words
    assert "text, json or html" in words


CHANGE = "known: text, json, html\n"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["retrain", "m", "--with", "adam", "--data", "d"], CHANGE),
        (["convert", "m", "--to", "ar"], CHANGE),
        (["compare", "a", "b"], CHANGE),
        (["fix", "m", "--data", "d"], CHANGE),
        (["inspect", "m"], "known: text, json\n"),
    ],
)
def test_a_refusal_names_only_the_formats_of_the_command(cli, words, named) -> None:
    asked = [["--format", "xml"]]
    if named == CHANGE:
        asked.append(["--report", "xml=change.xml"])
    for more in asked:
        done = cli(*words, *more)

        assert done.code == 2
        assert "unknown report format 'xml'" in done.err
        assert done.err.endswith(named)


def test_the_formats_that_are_named_are_those_of_the_report(
    cli, training, tmp_path
) -> None:
    scan = tmp_path / "scan.json"
    scan.write_text(scanned(WELL), encoding="utf-8")
    changed, judged = (cli("report", x, "--to", "xml") for x in (training, str(scan)))

    assert (changed.code, judged.code) == (2, 2)
    assert changed.err.endswith(CHANGE)
    assert "sarif" in judged.err


def test_a_format_of_findings_is_refused_before_its_place(cli, tmp_path) -> None:
    place = tmp_path / "there.sarif"
    place.touch()
    done = cli("compare", "a", "b", "--report", f"sarif={place}")

    assert done.code == 2
    assert "the format sarif shows one scan, and no change" in done.err
