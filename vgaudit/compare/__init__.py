"""Two reports side by side: what is gone, what is new, and how figures moved."""

from __future__ import annotations

from vgaudit.compare.change import Comparison, Verdict, compare, pairs
from vgaudit.compare.figures import Figures, figures
from vgaudit.compare.sides import Gain, Known, Side

__all__ = [
    "Comparison",
    "Figures",
    "Gain",
    "Known",
    "Side",
    "Verdict",
    "compare",
    "figures",
    "pairs",
]
