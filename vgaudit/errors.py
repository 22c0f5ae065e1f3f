"""The errors of vgaudit, each with its exit code.

::

    VgauditError            70   never raised itself
    ├── BadConfig            2   the command, option or configuration is wrong
    ├── UnknownSource        3   no loader understands the model or data given
    ├── CannotLoad           3   the file is refused, damaged or does not fit
    ├── CannotRun            3   the model or its data failed while running
    ├── CannotRewrite        3   the graph cannot be edited as asked
    ├── CannotWrite          3   a result cannot be written where it should go
    └── NothingMeasured      4   it ran, and there is nothing to judge

A message says what failed and with which value; the hint says what to do.
The library raises; only the command line catches, prints and exits.
"""

from __future__ import annotations

from typing import Any, ClassVar


class VgauditError(Exception):
    """The root of all errors that vgaudit raises on purpose.

    Attributes:
        message: what failed, with the value that made it fail, on one line.
        hint: what the user can do about it, on one line; may be empty.
        exit_code: what the command line exits with.
        way_out: what the user can do where a hint says nothing better.
    """

    exit_code: ClassVar[int] = 70
    way_out: ClassVar[str] = "--debug shows where it happened"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def to_dict(self) -> dict[str, Any]:
        """Returns the error as plain values, as the JSON report holds it."""
        return {
            "code": type(self).__name__,
            "message": self.message,
            "hint": self.hint or self.way_out,
            "exit_code": self.exit_code,
        }


class BadConfig(VgauditError):
    """A wrong command, option, value or configuration file."""

    exit_code = 2
    way_out = "--help of the command lists what it takes"


class UnknownSource(VgauditError):
    """A model or data specification that no loader understands."""

    exit_code = 3
    way_out = "--help of the command lists what it takes"


class CannotLoad(VgauditError):
    """A file that is refused, damaged, or does not fit its architecture."""

    exit_code = 3
    way_out = "look at the file; copy, download or write it again"


class CannotRun(VgauditError):
    """A model that fails on its data; names the last layer that ran."""

    exit_code = 3


class CannotRewrite(VgauditError):
    """A graph that cannot be edited; names the node and the reason."""

    exit_code = 3
    way_out = "--skip leaves a layer as it is"


class CannotWrite(VgauditError):
    """A result that cannot be written: the place is taken, missing, or full."""

    exit_code = 3
    way_out = "choose another place"


class NothingMeasured(VgauditError):
    """A run that left nothing to judge."""

    exit_code = 4


KINDS: dict[str, type[VgauditError]] = {
    kind.__name__: kind
    for kind in (
        BadConfig,
        UnknownSource,
        CannotLoad,
        CannotRun,
        CannotRewrite,
        CannotWrite,
        NothingMeasured,
    )
}


def from_dict(record: dict[str, Any]) -> VgauditError:
    """Returns the error that ``to_dict`` wrote; an unknown kind becomes the root."""
    kind = KINDS.get(str(record.get("code")), VgauditError)
    return kind(str(record.get("message", "")), hint=str(record.get("hint", "")))
