"""Which process of how many this is, as ``torchrun`` says it; no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vgaudit.errors import BadConfig

Parallel = Literal["ddp", "fsdp"]
"""Each rank has the whole model, or a part of every weight."""

MEETING = "VGAUDIT_MEETING"
"""The variable that names what the ranks meet for, to tell several meetings apart."""

_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Ranks:
    """One process among those that were launched together.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local_rank: its number on its machine, which names its device.
    """

    rank: int
    size: int
    local_rank: int

    @property
    def first(self) -> bool:
        """Whether this is the one that judges, prints and writes."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """Returns the device of this process: ``cuda`` alone means its own."""
        return f"cuda:{self.local_rank}" if name == "cuda" else name


def launched(given: Mapping[str, str] | None = None) -> Ranks | None:
    """Returns this process's place among several, or None where it is alone.

    Args:
        given: the environment; that of this process by default.

    Raises:
        BadConfig: some of torchrun's variables are there and others are not, or
            they are no numbers that fit each other.
    """
    given = os.environ if given is None else given
    if "RANK" not in given or "WORLD_SIZE" not in given:
        return None
    missing = [name for name in _NAMES if name not in given and name != "LOCAL_RANK"]
    if missing:
        raise BadConfig(
            f"RANK is set and {', '.join(missing)} is not",
            hint="start the command with torchrun, or unset RANK and WORLD_SIZE",
        )
    texts = [given["RANK"], given["WORLD_SIZE"], given.get("LOCAL_RANK", given["RANK"])]
    if not all(text.isdecimal() for text in texts):
        raise BadConfig(
            f"RANK, WORLD_SIZE and LOCAL_RANK are {', '.join(map(repr, texts))}",
            hint="start the command with torchrun, which sets them to numbers",
        )
    found = Ranks(*map(int, texts))
    if found.rank >= found.size:
        raise BadConfig(
            f"RANK is {found.rank} and WORLD_SIZE is {found.size}",
            hint="ranks are numbered from 0; start the command with torchrun",
        )
    return found
