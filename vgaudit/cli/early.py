"""A scan that a signal ends: what it measured up to then, marked as partial.

Only where a report goes to a file or to a program: somebody who reads along on a
terminal wants the prompt back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vgaudit.errors import VgauditError
from vgaudit.findings import Report

if TYPE_CHECKING:
    from vgaudit.cli.ending import Ending
    from vgaudit.cli.output import Outputs


class Interrupted(VgauditError):
    """Ctrl-C before anything was measured."""

    exit_code = 130


class Terminated(VgauditError):
    """SIGTERM before anything was measured."""

    exit_code = 143


def ending(outputs: Outputs) -> Ending | None:
    """Returns what turns the first signal into the wish for a partial report.

    None where nobody would get that report: the first signal ends at once then.
    """
    from vgaudit.cli.ending import Ending

    if outputs.form == "text" and not outputs.files:
        return None
    return Ending("finishing the batch for a partial report")


def told(error: VgauditError, end: Ending | None) -> VgauditError:
    """Returns the error, with the status of the signal that came before it."""
    if end is None or not end.status:
        return error
    kind = Interrupted if end.status == Interrupted.exit_code else Terminated
    return kind(error.message, hint=error.hint)


def marked(report: Report, end: Ending | None, *, asked: int) -> Report:
    """Returns the report, marked as partial where a signal came before its end.

    Args:
        report: on the batches that were measured.
        end: what the user asked for meanwhile.
        asked: how many batches should have been measured.
    """
    if end is None or not end.status:
        return report
    done = report.audit.flow.batches if report.audit else 0
    words = f"partial: the scan was interrupted with {done} of {asked} batches measured"
    failed = report.status == "fail"
    # A verdict on less than was asked for is none, unless it is already bad.
    return replace(
        report,
        status="fail" if failed else "inconclusive",
        exit_code=end.status,
        warnings=(words if failed else f"inconclusive: {words}", *report.warnings),
    )
