"""The command line as one of several ranks: the first speaks, the others follow.

All ranks that torchrun starts run the same command. Those that can share its work do;
what cannot be shared is done by the first rank alone. Either way only the first rank
prints and writes.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from vgaudit.errors import BadConfig
from vgaudit.ranks import Ranks, launched

SHARED = frozenset({"check", "fix", "retrain", "scan"})
"""The commands whose work several ranks share."""

ENDED = (130, 143)
"""What a command exits with that a signal ended."""

PATIENCE = 60.0
"""Seconds that a rank waits for the first one to say what went wrong."""


@dataclass(frozen=True, slots=True)
class Part:
    """What this process does of a command.

    Attributes:
        ranks: its place; None where it is alone.
        works: it runs the command.
    """

    ranks: Ranks | None = None
    works: bool = True

    @property
    def follows(self) -> bool:
        """Whether another rank speaks for this one."""
        return self.ranks is not None and not self.ranks.first

    def leave(self, status: int) -> None:
        """Waits, where this rank would end with an error before the first has spoken.

        torchrun ends all ranks as soon as one of them fails, and the first one may
        have a report to write. Being ended by it is what this waits for. A rank that
        was ended by a signal leaves at once: torchrun, which sent it, waits for that.
        """
        if not self.follows or status in (0, *ENDED):
            return

        def ended(_number: int, _frame: FrameType | None) -> NoReturn:
            os._exit(status)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, ended)
        time.sleep(PATIENCE)


def taken(typed: list[str]) -> Part:
    """Returns what this process does of a command; silences it where it follows.

    Args:
        typed: the command with its arguments.
    """
    try:
        ranks = launched()
    except BadConfig:
        # Some schedulers set these names for themselves; a shared command says so.
        return Part()
    if ranks is None:
        return Part()
    shared = next((word for word in typed if not word.startswith("-")), "") in SHARED
    if not shared:
        # The one rank that works must not wait for the others.
        os.environ.pop("RANK")
    if not ranks.first and "--debug" not in typed:
        nothing = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nothing, stream.fileno())
        os.close(nothing)
    return Part(ranks, works=shared or ranks.first)


def writes() -> bool:
    """Tells whether this process is the one that writes files."""
    ranks = launched()
    return ranks is None or ranks.first
