"""``vgaudit schema``: the JSON schema of a report."""

from __future__ import annotations


def schema() -> int:
    """Print the JSON schema of the JSON report."""
    from vgaudit.cli.output import show
    from vgaudit.reports import json

    show(json.schema())
    return 0
