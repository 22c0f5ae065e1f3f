"""A report goes to every place that takes it; what could not be written is told last.

A full disk costs one file and not the report: hours of training may stand behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from vgaudit.errors import CannotWrite, VgauditError
from vgaudit.plain import visible

Step = Callable[[], Sequence[Path]]
"""Writes something and returns its files."""


class PartlyWritten(CannotWrite):
    """A report that was shown, and could not be written to every file."""


def hand_out(
    steps: Iterable[Step], show: Callable[[], None], *, written: Sequence[str] = ()
) -> None:
    """Takes every step, shows the report, and says then what failed.

    Args:
        steps: taken in order, whatever becomes of the others.
        show: writes to standard output.
        written: files that the command has written before, which an error names too.

    Raises:
        PartlyWritten: a file could not be written; the hint names those that were.
    """
    failed: list[CannotWrite] = []
    names = list(written)
    for step in steps:
        try:
            names += map(str, step())
        except CannotWrite as error:
            failed.append(error)
    show()
    if failed:
        raise _partly(failed, names) from failed[0]


def with_report(error: VgauditError, steps: Iterable[Step]) -> VgauditError:
    """Returns the error that ends a command, once its report was written to the files.

    It stays what the user is told: a file that cannot be written is added to its hint.
    """
    try:
        hand_out(steps, lambda: None)
    except PartlyWritten as full:
        error.hint = f"{error.hint or error.way_out}; {full.message}"
    return error


def _partly(failed: Sequence[CannotWrite], names: Sequence[str]) -> PartlyWritten:
    hint = failed[0].hint or failed[0].way_out
    if names:
        listed = ", ".join(visible(name) for name in names)
        hint = f"{hint}; written all the same: {listed}"
    return PartlyWritten("; ".join(error.message for error in failed), hint=hint)
