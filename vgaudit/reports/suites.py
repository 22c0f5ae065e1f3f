"""Reports on several targets in one document, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from vgaudit import __version__
from vgaudit.errors import CannotLoad
from vgaudit.findings import Status
from vgaudit.plain import visible
from vgaudit.reports.escaping import inert, inert_json
from vgaudit.reports.json import SCHEMA_VERSION, Document, parse, schema
from vgaudit.reports.json import render as render_json
from vgaudit.reports.look import Look, ascii_only
from vgaudit.reports.text import DEFAULT
from vgaudit.reports.text import render as render_text
from vgaudit.reports.verdict import headline
from vgaudit.rules.wording import count
from vgaudit.suite import Entry, Suite, single


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """What put the reports together."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetReport:
    """A whole report under the name of its target."""

    name: str
    report: Document


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteDocument:
    """Reports on several targets in one document.

    Attributes:
        status: of the worst report. exit_code: of the command.
        command: what the user typed.
        targets: in the order of the configuration.
    """

    schema_version: str
    tool: Writer
    status: Status
    exit_code: int
    command: str
    targets: tuple[TargetReport, ...]


def schema_of_suites() -> str:
    """Returns the JSON schema of what ``render_suite_json`` writes."""
    return schema(SuiteDocument, "vgaudit report on several targets")


def render_suite_json(suite: Suite) -> str:
    """Returns the reports as one JSON document, each whole under its target's name."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "vgaudit", "version": __version__},
        "status": suite.status,
        "exit_code": suite.exit_code,
        "command": visible(suite.command, length=2000),
        "targets": [
            {"name": _written(entry.name), "report": json.loads(_json(entry))}
            for entry in suite.entries
        ],
    }
    return inert_json(json.dumps(document, allow_nan=False, indent=1)) + "\n"


def parse_suite(text: str) -> Suite:
    """Returns the reports of ``render_suite_json``, or one report as a suite.

    Raises:
        CannotLoad: the text is neither, or of another major version.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or "targets" not in record:
        return single(parse(text))
    targets = record["targets"]
    if not isinstance(targets, list) or not all(map(_is_target, targets)):
        raise CannotLoad(
            "not a vgaudit report: targets is no list of names and reports",
            hint="the file was changed by hand, or written by another version",
        )
    return Suite(
        entries=tuple(
            Entry(name=item["name"], report=parse(json.dumps(item["report"])))
            for item in targets
        ),
        command=str(record.get("command", "")),
    )


def render_suite_text(suite: Suite, look: Look = DEFAULT) -> str:
    """Returns a line for each target, then the reports of those that do not pass.

    A verbose look shows the others too.
    """
    lines = "\n".join(_overview(suite, look))
    shown = [
        entry
        for entry in suite.entries
        if look.verbose or entry.report.exit_code or entry.report.findings
    ]
    details = [
        f"\n── {visible(entry.name)} {'─' * 20}\n\n{render_text(entry.report, look)}"
        for entry in shown
    ]
    text = inert(f"{lines}\n" + "".join(details))
    return text if look.unicode else ascii_only(text)


def _overview(suite: Suite, look: Look) -> Iterator[str]:
    names = [visible(entry.name, length=40) for entry in suite.entries]
    wide = max(map(len, names), default=0)
    room = max(look.width - wide - 18, 30)
    for entry, name in zip(suite.entries, names, strict=True):
        status = entry.report.status.upper()
        words = visible(headline(entry.report), length=room)
        yield f"{status:<13} {name:<{wide}}  {words}".rstrip()
    passed = sum(entry.report.exit_code == 0 for entry in suite.entries)
    total = count(len(suite.entries), "target")
    yield ""
    yield f"{passed} of {total} pass · exit {suite.exit_code}"


def _json(entry: Entry) -> str:
    return render_json(entry.report)


def _written(name: str) -> str:
    """Returns a name as JSON can hold it, lone surrogates spelled out."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_target(item: object) -> bool:
    if not isinstance(item, dict):
        return False
    name, report = item.get("name"), item.get("report")
    return isinstance(name, str) and isinstance(report, dict)
