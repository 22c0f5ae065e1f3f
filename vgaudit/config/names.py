"""The nearest known name to one that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(wanted: str, known: Iterable[str]) -> str:
    """Returns ``did you mean X? `` for the nearest known name, or nothing."""
    lowered = {name.lower(): name for name in known}
    close = get_close_matches(wanted.lower(), lowered, n=1, cutoff=0.5)
    return f"did you mean {lowered[close[0]]}? " if close else ""
