"""What a worker is allowed, as plain values that cross to its process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["auto", "require", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What one worker may do beyond reading files and computing.

    Attributes:
        mode: ``auto`` closes as much as the system can, ``require`` fails where
            it cannot, ``off`` closes nothing.
        writable: folders below which files may be written.
        network: TCP connections are allowed, to fetch weights that were asked for.
        meeting: what the worker meets those of other ranks for, by TCP; empty where
            it works alone.
        passed: environment variables that the worker sees whatever their name.
        own_code: the user named code to run, which may read its environment;
            without it the worker sees only what torch needs.
    """

    mode: Mode = "auto"
    writable: tuple[str, ...] = ()
    network: bool = False
    meeting: str = ""
    passed: tuple[str, ...] = ()
    own_code: bool = False
