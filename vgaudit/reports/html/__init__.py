"""HTML: one file, no script, no network; and the same inside a notebook."""

from __future__ import annotations

from vgaudit.compare import Comparison
from vgaudit.conversion import Conversion
from vgaudit.findings import Report
from vgaudit.fixing import Fixing
from vgaudit.reports.html import change, fixing, page, scan, sides, suite
from vgaudit.reports.html.change import Sides
from vgaudit.reports.html.page import Page
from vgaudit.retraining import Retraining
from vgaudit.suite import Suite

__all__ = [
    "Page",
    "compared",
    "converted",
    "fixed",
    "render",
    "render_suite",
    "retrained",
    "scanned",
]


def render(report: Report) -> str:
    """Returns the report as an HTML page."""
    return scanned(report).document()


def render_suite(reports: Suite) -> str:
    """Returns several reports as one HTML page."""
    view = suite.view(reports)
    title = f"{view.status}: {view.headline}"
    return Page(title, page.filled("suite.html", view)).document()


def scanned(report: Report) -> Page:
    """Returns one scan, for a file or a notebook."""
    view = scan.view(report)
    return Page(f"{view.status}: {view.target}", page.filled("scan.html", view))


def compared(
    found: Comparison, before: Report | None = None, after: Report | None = None
) -> Page:
    """Returns a comparison; with both reports, its pictures too."""
    scans = Sides(
        before=before.audit if before is not None else None,
        after=after.audit if after is not None else None,
    )
    return _changed(sides.named(change.comparison(found, scans), found))


def converted(done: Conversion, found: Comparison | None = None) -> Page:
    """Returns a conversion with its proof."""
    return _changed(change.conversion(done, found))


def retrained(done: Retraining, found: Comparison | None = None) -> Page:
    """Returns a training with its controls and its proof."""
    return _changed(change.retraining(done, found))


def fixed(done: Fixing) -> Page:
    """Returns a repair: every arm with its curves and its gradient budget."""
    return _changed(fixing.view(done))


def _changed(view: change.View) -> Page:
    return Page(f"{view.status}: {view.target}", page.filled("change.html", view))
