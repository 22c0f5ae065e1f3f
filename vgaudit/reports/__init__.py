"""The report formats, one file each, in one table.

A format is added by its file, with a pure ``render`` in it, and its line in
``REPORTS``. Only the command line writes.
"""

from __future__ import annotations

from collections.abc import Callable

from vgaudit.findings import Report
from vgaudit.reports import json, text

__all__ = ["REPORTS", "Render"]

Render = Callable[[Report], str]

REPORTS: dict[str, Render] = {
    "json": json.render,
    "text": text.render,
}
