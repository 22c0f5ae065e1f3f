"""``vgaudit schema``: the JSON schema of a report, of several, or of a change."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Of(StrEnum):
    """The documents that have a schema."""

    report = "report"
    check = "check"
    retrain = "retrain"
    compare = "compare"


def schema(
    of: Annotated[
        Of,
        typer.Argument(
            help="report: one report. check: those on all targets of a configuration. "
            "retrain: one training. compare: one comparison.",
        ),
    ] = Of.report,
) -> int:
    """Print the JSON schema of the JSON report.

    Within one major version of the schema, fields are only added.
    """
    from vgaudit.cli.output import show
    from vgaudit.reports import comparison, json, retraining, suites

    schemas = {
        Of.report: json.schema,
        Of.check: suites.schema_of_suites,
        Of.retrain: retraining.schema,
        Of.compare: comparison.schema,
    }
    show(schemas[of]())
    return 0
