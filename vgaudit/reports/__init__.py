"""The report formats, one file each, in one table.

A format is added by its file, with a pure ``render`` in it, and its line in
``REPORTS``; one that can show several reports in one document has a line in
``SUITES`` too. Only the command line writes.
"""

from __future__ import annotations

from collections.abc import Callable

from vgaudit.findings import Report
from vgaudit.reports import (
    csv,
    github,
    html,
    json,
    junit,
    markdown,
    sarif,
    suites,
    text,
)
from vgaudit.suite import Suite

__all__ = ["REPORTS", "SUITES", "Render", "RenderSuite"]

Render = Callable[[Report], str]
RenderSuite = Callable[[Suite], str]

REPORTS: dict[str, Render] = {
    "json": json.render,
    "text": text.render,
    "markdown": markdown.render,
    "html": html.render,
    "sarif": sarif.render,
    "junit": junit.render,
    "github": github.render,
    "csv": csv.render,
}

SUITES: dict[str, RenderSuite] = {
    "json": suites.render_suite_json,
    "text": suites.render_suite_text,
    "markdown": markdown.render_suite,
    "html": html.render_suite,
    "sarif": sarif.render_suite,
    "junit": junit.render_suite,
    "github": github.render_suite,
    "csv": csv.render_suite,
}
