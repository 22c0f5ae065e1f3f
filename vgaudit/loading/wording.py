"""Names from files and texts of errors, made fit for one line of a message."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 5


def shorten(name: str, length: int = 80) -> str:
    """Returns a name from a file, harmless to print and not too long."""
    visible = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in name)
    return visible if len(visible) <= length else f"{visible[: length - 1]}…"


def listed(names: Sequence[str]) -> str:
    """Returns the first five names and how many follow."""
    shown = ", ".join(shorten(name) for name in names[:SHOWN])
    more = len(names) - SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def one_line(error: BaseException, length: int = 200) -> str:
    """Returns an error's text on one line."""
    return shorten(" ".join(str(error).split()), length)
