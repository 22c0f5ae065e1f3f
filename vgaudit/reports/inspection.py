"""What ``vgaudit inspect`` found in a file, as text or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vgaudit.plain import to_json, visible

LABEL = 20
MOST = 12
"""Items of a list that text shows; JSON has them all."""


def render(found: Mapping[str, Any], *, form: str = "text") -> str:
    """Returns the facts, one a line; those that are empty are left out.

    Args:
        found: facts by name: strings, numbers, lists of strings, or facts again.
        form: ``text`` or ``json``.
    """
    if form == "json":
        return to_json(dict(found), indent=1) + "\n"
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Mapping[str, Any], *, indent: str = "") -> Iterator[str]:
    for name, value in found.items():
        label = f"{indent}{visible(name.replace('_', ' '))}"
        if isinstance(value, Mapping):
            if value:
                yield label
                yield from _lines(value, indent=indent + "  ")
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value[:MOST]):
                yield _line(label if index == 0 else "", item)
            if len(value) > MOST:
                yield _line("", f"… and {len(value) - MOST:,} more")
        elif value not in (None, ""):
            yield _line(label, value)


def _line(label: str, value: Any) -> str:
    text = {True: "yes", False: "no"}.get(value) if isinstance(value, bool) else None
    number = f"{value:,}" if isinstance(value, int) else str(value)
    return f"{label:<{LABEL}}{visible(text or number, length=1000)}"
