"""HTML: one file, no script, no network; and the same inside a notebook."""

from __future__ import annotations

from vgaudit.findings import Report
from vgaudit.reports.html import page, scan

__all__ = ["fragment", "render"]


def render(report: Report) -> str:
    """Returns the report as an HTML page."""
    view = scan.view(report)
    return page.document(f"{view.status}: {view.target}", page.body("scan.html", view))


def fragment(report: Report) -> str:
    """Returns the report as HTML for a notebook's cell."""
    return page.fragment(page.body("scan.html", scan.view(report)))
