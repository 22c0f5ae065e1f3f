"""The report formats, one file each, in one table.

A format is added by its file, with a pure ``render`` in it, and its line in
``REPORTS``; one that can show several reports in one document, by ``render_suite``,
has a line in ``SUITES`` too. Formats are imported when they are first used: the
command line starts without them. Only the command line writes.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from vgaudit.findings import Report
from vgaudit.suite import Suite

__all__ = ["REPORTS", "SUITES", "Render", "RenderSuite"]

Render = Callable[[Report], str]
RenderSuite = Callable[[Suite], str]


def _one(module: str) -> Render:
    def render(report: Report) -> str:
        text: str = import_module(f"vgaudit.reports.{module}").render(report)
        return text

    return render


def _several(module: str, function: str = "render_suite") -> RenderSuite:
    def render(suite: Suite) -> str:
        text: str = getattr(import_module(f"vgaudit.reports.{module}"), function)(suite)
        return text

    return render


REPORTS: dict[str, Render] = {
    "json": _one("json"),
    "text": _one("text"),
    "markdown": _one("markdown"),
    "html": _one("html"),
    "sarif": _one("sarif"),
    "junit": _one("junit"),
    "github": _one("github"),
    "csv": _one("csv"),
}

SUITES: dict[str, RenderSuite] = {
    "json": _several("suites", "render_suite_json"),
    "text": _several("suites", "render_suite_text"),
    "markdown": _several("markdown"),
    "html": _several("html"),
    "sarif": _several("sarif"),
    "junit": _several("junit"),
    "github": _several("github"),
    "csv": _several("csv"),
}
