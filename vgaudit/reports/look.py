"""How a report looks on the terminal that shows it, and the marks it is drawn with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = str.maketrans(
    {
        **dict(zip(BLOCKS, "_.:-=+*#", strict=True)),
        "░": ".",
        "…": "...",
        "−": "-",
        "–": "-",
        "·": "|",
        "×": "x",
        "→": "->",
        "≥": ">=",
        "≤": "<=",
        "’": "'",
        "“": '"',
        "”": '"',
        "│": "|",
        "┆": ":",
        "ε": "eps",
        "δ": "d",
        "φ": "phi",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the place where a report is shown can do.

    Attributes:
        width: columns.
        color: it understands colour codes.
        unicode: it can show block characters; plain ASCII otherwise.
        top: how many findings and layers to list.
        verbose: list every layer and all evidence.
    """

    width: int = 80
    color: bool = False
    unicode: bool = True
    top: int = 20
    verbose: bool = False


def ascii_only(text: str) -> str:
    """Returns text in ASCII: the marks by their stand-ins, the rest spelled out."""
    translated = text.translate(_ASCII)
    return translated.encode("ascii", "backslashreplace").decode("ascii")


def heights(
    values: Sequence[float], *, bottom: float = -4.0, top: float = 0.0
) -> list[int]:
    """Returns the height of each bar, 0 to 7, on a common scale.

    Args:
        values: decades. ``−inf`` is the lowest; NaN too.
        bottom: the scale reaches at least from here, so that a healthy profile
            looks flat and high and not like a cliff.
        top: … to here.
    """
    finite = [value for value in values if math.isfinite(value)]
    low, high = min([bottom, *finite]), max([top, *finite])
    steps = len(BLOCKS) - 1
    return [
        round((value - low) / (high - low) * steps)
        if math.isfinite(value)
        else steps * (value == math.inf)
        for value in values
    ]


def binned(values: Sequence[float], most: int) -> list[float]:
    """Returns at most ``most`` values, each the lowest of its share of the sequence."""
    if len(values) <= most:
        return list(values)
    edges = [len(values) * i // most for i in range(most + 1)]
    pairs = itertools.pairwise(edges)
    return [min(values[start:end]) for start, end in pairs]


def bar(share: float, *, width: int = 20) -> str:
    """Returns a bar that is filled to ``share`` of its width."""
    filled = round(min(max(share, 0.0), 1.0) * width)
    return "█" * filled + "░" * (width - filled)
