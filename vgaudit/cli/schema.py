"""``vgaudit schema``: the JSON schema of a report, or of one on several targets."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Of(StrEnum):
    """The documents that have a schema."""

    report = "report"
    check = "check"


def schema(
    of: Annotated[
        Of,
        typer.Argument(
            help="report: one report. check: those on all targets of a configuration.",
        ),
    ] = Of.report,
) -> int:
    """Print the JSON schema of the JSON report.

    Within one major version of the schema, fields are only added.
    """
    from vgaudit.cli.output import show
    from vgaudit.reports import json, suites

    show(suites.schema_of_suites() if of is Of.check else json.schema())
    return 0
