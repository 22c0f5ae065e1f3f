"""Several reports as one: what ``vgaudit check`` renders."""

from __future__ import annotations

from dataclasses import dataclass

from vgaudit.findings import Report, Status

_WORST_FIRST = (70, 2, 3, 1, 4)
"""Which exit code stands for all. A run that failed outranks a gate that failed, so
that ``--exit-zero`` cannot hide it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The report on one target, under the target's name."""

    name: str
    report: Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Reports on several targets.

    Attributes:
        entries: in the order of the configuration.
        command: what the user typed.
    """

    entries: tuple[Entry, ...]
    command: str = ""

    @property
    def exit_code(self) -> int:
        """The exit code of the worst report; 4 where there is none."""
        codes = {entry.report.exit_code for entry in self.entries}
        if not codes:
            return 4
        return next((code for code in _WORST_FIRST if code in codes), max(codes))

    @property
    def status(self) -> Status:
        """The status of the worst report."""
        found = {entry.report.status for entry in self.entries}
        order: tuple[Status, ...] = ("error", "fail", "inconclusive", "pass")
        return next((status for status in order if status in found), "inconclusive")


def single(report: Report) -> Suite:
    """Returns one report as a suite, under the name of its model."""
    name = report.audit.target.spec if report.audit is not None else "model"
    return Suite(entries=(Entry(name=name, report=report),), command=report.command)
