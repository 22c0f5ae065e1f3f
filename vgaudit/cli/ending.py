"""Signals and time limits as a word to the worker: save, then end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

GRACE = 60.0
"""Seconds that a task which saves gets for its last step beyond the time limit."""


class Ending:
    """Turns the first Ctrl-C or SIGTERM into a word to the worker: save, then end.

    Args:
        words: what the user reads then.
        advance: shows how far a task is that tells it.
        grace: seconds that the worker gets to end by itself where it reaches its time
            limit; with 0 that limit is no such word.

    Attributes:
        status: what to exit with, 0 while nobody asked for the end.
    """

    def __init__(
        self,
        words: str,
        advance: Callable[[dict[str, Any]], None] | None = None,
        *,
        grace: float = 0.0,
    ) -> None:
        self.words = words
        self.advance = advance
        self.grace = grace
        self.status = 0

    @contextlib.contextmanager
    def listening(self, tell: Callable[[], None]) -> Iterator[None]:
        """Calls ``tell`` at the first signal; the second does what it always did."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in numbers}

        def heard(number: int, _frame: object) -> None:
            self.status = 128 + number
            restore()
            tell()

        def restore() -> None:
            for number in numbers:
                signal.signal(number, before[number])

        for number in numbers:
            signal.signal(number, heard)
        try:
            yield
        finally:
            restore()
