"""Reports to render: hostile, large, failed, suppressed."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

from vgaudit.errors import CannotRun
from vgaudit.findings import Report, Suppressed
from vgaudit.flow import Histogram, LayerFlow, Source
from vgaudit.judge import failed, judge
from vgaudit.rules.examples import chain, having, layer
from vgaudit.suite import Entry, Suite

SICK = chain([-9.0, -7.0, -5.0, -3.0, -1.0, 0.0])

HOSTILE = {
    "markup": "[red]x[/red]",
    "ansi": "\x1b[31mred\x1b[2J\x9b5m",
    "script": "<script>alert('x')</script>\"><img src=x onerror=alert(1)>",
    "command": "a\n::error file=x::owned\r\n  ::add-mask::b ##[error]c",
    "commands alone": "::error::x",
    "control": "".join(map(chr, range(32))) + "\x7f\x85\u2028\u202e\ufeff\ufffe",
    "formula": "=cmd|' /C calc'!A0",
    "markdown": "| a | [x](http://evil.example) `b` @team $x$ **c** <!-- --> \n# d",
    "xml": "]]>&<![CDATA[x]]>&#0;",
    "surrogate": "\udc80\ud800",
    "long": "x" * 100_000,
    "percent": "%0A::error::y %25",
}


def sick() -> Report:
    """Returns a report with a finding at a source line and every kind of row."""
    source = Source(file="/elsewhere/net.py", line=42)
    return judge(layer(SICK, "layers.0", source=source))


def renamed(value: Any, old: str, new: str) -> Any:
    """Returns the value with every text in it changed, however deep."""
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, tuple):
        return tuple(renamed(item, old, new) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {
            f.name: renamed(getattr(value, f.name), old, new) for f in fields(value)
        }
        return replace(value, **changed)
    return value


def _classes(row: LayerFlow, name: str) -> LayerFlow:
    """Returns a row whose class, and whose activation's class, has a name."""
    if row.activation is None:
        return replace(row, type=name)
    bins = Histogram(start=-1.0, width=1.0, counts=(2, 1), saturated=(1, 0))
    mean_slope = 1e-4 if row.path.endswith("1") else 0.04
    own = replace(
        row.activation,
        kind=name,
        histogram=bins,
        saturated_high=0.9,
        slope_mean_square=mean_slope,
        dead_units=60,
    )
    return replace(row, type=name, activation=own)


def hostile(name: str) -> Report:
    """Returns a report whose layers, parameters and files carry a hostile name."""
    layers = tuple(_classes(x, name) for x in SICK.flow.layers)
    audit = having(SICK, layers=layers)
    report = judge(renamed(audit, "layers", name))
    findings = tuple(renamed(f, "layers", name) for f in report.findings)
    source = Source(file=f"/x/{name}.py", line=3)
    first = replace(findings[0], source=source, evidence=(name,))
    hidden = Suppressed(finding=first, by="ignore", reason=name)
    return replace(
        report,
        findings=(first, *findings[1:], replace(first, level="warning", layer=name)),
        suppressed=(hidden, replace(hidden, by="baseline")),
        warnings=(name,),
        command=f"vgaudit scan {name}",
    )


def broken(text: str = "it failed") -> Report:
    """Returns the report on a run that failed."""
    return failed(CannotRun(text, hint=f"way out of {text}"))


def suite(*reports: Report) -> Suite:
    """Returns reports under the names a, b, c …"""
    named = zip("abcdefgh", reports, strict=False)
    entries = tuple(Entry(name=name, report=report) for name, report in named)
    return Suite(entries=entries, command="vgaudit check")
