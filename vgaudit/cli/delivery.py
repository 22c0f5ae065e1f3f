"""A report goes to every place that takes it; what could not be written is told last.

A full disk costs one file and not the report: hours of training may stand behind it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from vgaudit.errors import CannotWrite, VgauditError
from vgaudit.plain import visible

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says of a disk, a quota or a file that takes no more."""

Step = Callable[[], Sequence[Path]]
"""Writes something and returns its files."""


class PartlyWritten(CannotWrite):
    """A report that could not be written to every place that was to have it."""


def hand_out(
    steps: Iterable[Step], show: Callable[[], None], *, written: Sequence[str] = ()
) -> None:
    """Takes every step, shows the report, and says then what failed.

    Args:
        steps: taken in order, whatever becomes of the others.
        show: writes to standard output, which may be a file on a full disk too.
        written: files that the command has written before, which an error names too.

    Raises:
        PartlyWritten: a place takes no more; the hint names the files that were
            written.
    """
    failed: list[CannotWrite] = []
    names = list(written)
    for step in steps:
        try:
            names += map(str, step())
        except CannotWrite as error:
            failed.append(error)
    try:
        show()
    except CannotWrite as error:
        failed.append(error)
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


def unwritable(error: OSError) -> CannotWrite:
    """Returns what the user is told of an output that takes no more."""
    why = error.strerror or error
    return CannotWrite(
        f"standard output cannot be written: {visible(str(why))}",
        hint="free some space, or send it somewhere else",
    )


def abandon() -> None:
    """Sends to nowhere what standard output still holds and is yet to get.

    The interpreter would fail on it once more in its last flush.
    """
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
