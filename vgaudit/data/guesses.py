"""What was guessed about the data is told where the model then fails on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from vgaudit.errors import CannotRun

LABELS_GUESSED = "labels are in the last column"
"""How a note begins that says where labels were taken from, for want of a heading."""

_WAY = "a heading such as 'label' names another column"


@contextlib.contextmanager
def guesses_told(notes: Sequence[str]) -> Iterator[None]:
    """Adds what was guessed about the data to the hint of an error.

    Args:
        notes: on the data.
    """
    try:
        yield
    except CannotRun as error:
        guessed = [note for note in notes if note.startswith(LABELS_GUESSED)]
        if guessed:
            error.hint = "; ".join(filter(None, (error.hint, *guessed, _WAY)))
        raise
