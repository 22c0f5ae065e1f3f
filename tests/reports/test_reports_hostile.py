"""Hostile names through every format of the table: valid, visible, and inert."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import jsonschema
import pytest

from tests.reports.examples import HOSTILE, broken, hostile, suite
from tests.reports.schemas import SARIF, schema
from vgaudit.plain import visible
from vgaudit.reports import REPORTS, SUITES
from vgaudit.reports.json import parse
from vgaudit.reports.suites import parse_suite
from vgaudit.suite import Entry, Suite

FORMATS = pytest.mark.parametrize("form", REPORTS)
NAMES = pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
ATTRIBUTES = re.compile("^on")


class Page(HTMLParser):
    """What a browser would run in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.harm: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "iframe", "object", "embed", "img", "link", "base"}:
            self.harm.append(tag)
        self.harm += [f"{tag} {key}" for key, _ in attrs if ATTRIBUTES.match(key)]


def checked_html(text: str) -> None:
    page = Page()
    page.feed(text)

    assert [] == page.harm


def checked_github(text: str) -> None:
    properties = r"(?:(?:file|line|title)=[^,:]+,?)+"
    command = rf"::(error|warning|notice) {properties}::"
    for line in text.splitlines():
        assert re.match(command, line)


def checked_csv(text: str) -> None:
    for row in csv.reader(io.StringIO(text)):
        assert not any(re.match(r"[=+@\t]|-[^\d]", cell) for cell in row)


def checked_markdown(text: str) -> None:
    assert not re.search(r"<(?!/?(details|summary)>|!-- -->)", text)
    assert not re.search(r"(?<!\\)\]\(", text)
    assert not re.search(r"(?<!\\)@", text)
    for line in text.splitlines():
        if line.startswith("| error"):
            assert 5 == len(re.findall(r"(?<!\\)\|", line))


def checked_sarif(text: str) -> None:
    jsonschema.Draft7Validator(schema(SARIF)).validate(json.loads(text))


CHECKS = {
    "json": lambda text: json.loads(text),
    "html": checked_html,
    "github": checked_github,
    "csv": checked_csv,
    "markdown": checked_markdown,
    "sarif": checked_sarif,
    "junit": ElementTree.fromstring,
    "text": len,
}


def test_every_format_has_a_check() -> None:
    assert set(REPORTS) == set(CHECKS)


@NAMES
@FORMATS
def test_a_hostile_report_is_valid_and_visible(form: str, name: str) -> None:
    text = REPORTS[form](hostile(name))

    safe(form, text)
    CHECKS[form](text)


@NAMES
@pytest.mark.parametrize("form", SUITES)
def test_hostile_targets_and_errors_too(form: str, name: str) -> None:
    entries = suite(hostile(name), broken(name)).entries
    named = Suite(
        entries=tuple(Entry(name=name + x.name, report=x.report) for x in entries),
        command=name,
    )
    text = SUITES[form](named)

    safe(form, text)
    CHECKS[form](text)


def safe(form: str, text: str) -> None:
    """Nothing hidden, and nothing that a runner takes for a command."""
    assert all(ch.isprintable() or ch == "\n" for ch in text)
    text.encode("utf-8")
    if form != "github":
        assert not re.search(r"(?m)^\s*::", text)
    assert "##[" not in text
    if form not in ("json", "html"):
        assert "x" * 1100 not in text


@NAMES
def test_json_keeps_a_name_as_it_was(name: str) -> None:
    report = hostile(name)
    written = name.encode("utf-8", "backslashreplace").decode("utf-8")

    again = parse(REPORTS["json"](report))
    assert written in again.audit.flow.layers[0].path
    both = parse_suite(SUITES["json"](suite(report, report)))
    assert ["a", "b"] == [entry.name for entry in both.entries]
    assert again == both.entries[0].report


def test_visible_names_are_what_the_reader_sees() -> None:
    text = REPORTS["markdown"](hostile("a_b"))

    assert r"a\_b.0" in text
    assert visible("a_b.0") in REPORTS["text"](hostile("a_b"))
