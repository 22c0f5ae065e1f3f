"""The JSON report: every figure, in a versioned schema.

The document is the report as it stands (`vgaudit.findings.Report`), with the
schema's version, the tool and a short summary beside it. Within one major version
fields are only added. Numbers that JSON cannot spell are the strings ``"nan"``,
``"inf"`` and ``"-inf"``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from vgaudit import __version__
from vgaudit.errors import CannotLoad
from vgaudit.findings import Report
from vgaudit.flow import Audit, Interval
from vgaudit.plain import kind_of, to_plain, visible
from vgaudit.reports.escaping import inert_json
from vgaudit.typed import Mismatch, adapter, typed

SCHEMA_VERSION = "1.0"
KINDS = {
    "retraining": "training",
    "conversion": "conversion",
    "fixing": "repair",
    "comparison": "comparison",
}
"""Key of a document on a change → what it is the report of; the first decides."""

T = TypeVar("T")
_URL = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """What wrote the document: its version, and torch's and Python's where it ran."""

    name: str
    version: str
    torch: str | None
    python: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstStep:
    """The step of the trunk that loses most, in decades."""

    name: str
    gain: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many findings there are of each level."""

    error: int
    warning: int
    info: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The figures of the first line."""

    attenuation_decades: Interval | None
    decades_per_layer: float | None
    worst_step: WorstStep | None
    findings: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Document(Report):
    """A report, and what a reader of the bare file wants to know beside it."""

    schema_version: str
    tool: Tool
    summary: Summary


def render(report: Report) -> str:
    """Returns the report as a JSON document."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "tool": to_plain(_tool(report)),
        "summary": to_plain(_summary(report)),
        **to_plain(report),
    }
    for entry, finding in zip(document["findings"], report.findings, strict=True):
        entry["fingerprint"] = finding.fingerprint
    return inert_json(json.dumps(document, allow_nan=False, indent=1)) + "\n"


def parse(text: str) -> Report:
    """Returns the report that ``render`` wrote.

    Raises:
        CannotLoad: the text is no such document, or of another major version.
    """
    record = _record(text)
    check_version(record)
    change = next((name for key, name in KINDS.items() if key in record), "")
    if change and "status" not in record:
        raise CannotLoad(
            f"the report of a {change}, not of a scan",
            hint="`vgaudit report FILE` shows it, `vgaudit compare` takes its scans",
        )
    document = validated(Document, record, "a vgaudit report")
    return Report(**{f.name: getattr(document, f.name) for f in fields(Report)})


def parse_audit(record: object) -> Audit:
    """Returns the audit that a worker sent as plain values.

    Raises:
        CannotLoad: it is no audit.
    """
    return validated(Audit, record, "a vgaudit measurement")


def schema(kind: type = Document, title: str = "vgaudit report") -> str:
    """Returns the JSON schema of a document.

    Args:
        kind: of the document: that of one report, or one that holds such.
        title: what it is called.
    """
    from pydantic.json_schema import GenerateJsonSchema

    class Schema(GenerateJsonSchema):
        """Numbers may be spelled ``"nan"``, ``"inf"`` and ``"-inf"``."""

        def float_schema(self, schema: Any) -> dict[str, Any]:
            number = super().float_schema(schema)
            return {"anyOf": [number, {"enum": ["nan", "inf", "-inf"]}]}

    record = adapter(kind).json_schema(schema_generator=Schema)
    finding = record["$defs"]["Finding"]["properties"]
    finding["fingerprint"] = {"title": "Fingerprint", "type": "string"}
    head = {"$schema": _URL, "$comment": f"schema_version {SCHEMA_VERSION}"}
    return json.dumps({**head, **record, "title": title}, indent=1) + "\n"


def _record(text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CannotLoad(
            f"not a JSON report: {visible(str(error))}",
            hint="give a file written by --report json=PATH",
        ) from error
    if not isinstance(record, dict):
        raise CannotLoad(
            f"not a JSON report: {kind_of(record)} and no object",
            hint="give a file written by --report json=PATH",
        )
    return record


def check_version(record: dict[str, Any]) -> None:
    """Makes sure that a document is of a version that is read here.

    Raises:
        CannotLoad: it is of another major version, or names none.
    """
    found = str(record.get("schema_version", "missing"))
    if found.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise CannotLoad(
            f"not a report that this version reads: schema_version {visible(found)}",
            hint=f"vgaudit {__version__} reads schema_version {SCHEMA_VERSION}",
        )


def validated(kind: type[T], record: object, what: str) -> T:
    """Returns what plain values stand for.

    Args:
        kind: the dataclass.
        record: the plain values.
        what: for the message, ``a vgaudit report``.

    Raises:
        CannotLoad: they stand for no such thing.
    """
    try:
        return typed(kind, record)
    except Mismatch as error:
        raise CannotLoad(
            f"not {what}: {error}",
            hint="the file was changed by hand, or written by another version",
        ) from error


def _tool(report: Report) -> Tool:
    run = report.audit.run if report.audit else None
    return Tool(
        name="vgaudit",
        version=__version__,
        torch=run.torch if run else None,
        python=run.python if run else None,
    )


def _summary(report: Report) -> Summary:
    flow = report.audit.flow if report.audit else None
    worst = flow.worst_step if flow else None
    return Summary(
        attenuation_decades=flow.attenuation if flow else None,
        decades_per_layer=flow.decades_per_layer if flow else None,
        worst_step=WorstStep(name=worst.name, gain=worst.gain.value) if worst else None,
        findings=Counts(
            error=report.count("error"),
            warning=report.count("warning"),
            info=report.count("info"),
        ),
    )
