"""How figures and places are worded in findings, the same in every rule."""

from __future__ import annotations

from collections.abc import Sequence

from vgaudit.flow import Interval
from vgaudit.plain import visible

__all__ = ["count", "decades", "names", "number", "percent", "place", "span"]


def decades(value: float) -> str:
    """Returns ``9.6`` or ``−9.6``, with a typographic minus sign; never ``−0.0``."""
    return f"{value:z.1f}".replace("-", "−")


def span(interval: Interval) -> str:
    """Returns ``−9.6``, or ``−9.6 [−9.8, −9.4]`` where there is a spread to show."""
    text, lo, hi = (decades(x) for x in (interval.value, interval.lo, interval.hi))
    return text if lo == hi else f"{text} [{lo}, {hi}]"


def percent(share: float) -> str:
    """Returns ``61 %``; one decimal below 10 %, so that 0.4 % is not 0 %."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 or value == 0 else f"{value:.1f} %"


def number(value: float) -> str:
    """Returns a figure with three digits, ``1.2e9`` where it is far from 1."""
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    power = f"e{int(exponent)}" if exponent else ""
    return f"{mantissa}{power}".replace("-", "−")


def count(n: int, noun: str) -> str:
    """Returns ``1 layer``, ``12,000 layers`` or ``2 batches``."""
    return f"{n:,} {noun if n == 1 else _plural(noun)}"


def place(paths: Sequence[str]) -> str:
    """Returns ``first … last`` for a run of layers, the name of a single one."""
    if not paths:
        return ""
    return paths[0] if len(paths) == 1 else f"{paths[0]} … {paths[-1]}"


def names(items: Sequence[str], *, most: int = 5) -> str:
    """Returns the first few names, made visible, and how many more there are."""
    shown = ", ".join(visible(item) for item in items[:most])
    rest = len(items) - most
    return f"{shown} and {rest:,} more" if rest > 0 else shown


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    hissing = noun.endswith(("ch", "ss")) and noun != "epoch"
    return f"{noun}es" if hissing else f"{noun}s"
