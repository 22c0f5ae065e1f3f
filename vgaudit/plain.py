"""Values as plain JSON, and hostile names as plain text.

Results leave the worker and enter a report through ``to_plain``; names out of a
model file enter a sentence through ``visible``.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Hashable, Iterable
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, cast

NAME_LENGTH = 120
"""The longest name a sentence shows."""

UNSPELLED = ("nan", "inf", "-inf")
"""Numbers that JSON cannot spell, as ``to_plain`` writes them."""

_HIDDEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})


def to_plain(value: Any) -> Any:
    """Returns a value as dicts, lists, strings, numbers, booleans and None.

    Dataclasses become dicts of their fields, tuples become lists. Numbers that
    JSON cannot spell become the strings ``"nan"``, ``"inf"`` and ``"-inf"``, and
    lone surrogates in a string (a file name may hold them) are written out.

    Raises:
        TypeError: a value of another type, such as a tensor, was passed.
    """
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value if value.isascii() else _utf8(value)
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {_utf8(str(key)): to_plain(item) for key, item in value.items()}
    names = _field_names(cast(Hashable, type(value)))
    if not names:
        raise TypeError(f"{type(value).__name__} is not a plain value")
    return {name: to_plain(getattr(value, name)) for name in names}


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Returns a value as strict JSON in ASCII, on one line without ``indent``.

    Raises:
        TypeError: a value of another type, such as a tensor, was passed.
    """
    return json.dumps(to_plain(value), allow_nan=False, indent=indent)


def visible(text: str, *, length: int = NAME_LENGTH) -> str:
    r"""Returns text on one line, with nothing hidden in it, shortened in the middle.

    Control characters, escape sequences, line separators and the marks that turn
    the direction of writing are spelled as ``\x1b``, ``\n``, ``\u202e``.
    """
    short = _shortened(text, length)
    if short.isascii() and short.isprintable():
        return short
    spelled = (
        ch.encode("unicode_escape").decode("ascii")
        if unicodedata.category(ch) in _HIDDEN
        else ch
        for ch in short
    )
    return _shortened("".join(spelled), length)


def kind_of(value: object) -> str:
    """Returns what a value is in a sentence: ``an int``, ``a list`` or ``None``."""
    if value is None:
        return "None"
    name = visible(type(value).__name__)
    # A word that begins with u mostly sounds like "you": a UNet, a uint8.
    return f"{'an' if name[:1] in 'aeioAEIO' else 'a'} {name}"


def _shortened(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    head = (length - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


@cache
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind)) if is_dataclass(kind) else ()


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def nearest(wanted: str, known: Iterable[str]) -> str:
    """Returns ``did you mean X? `` for the nearest known name, or nothing."""
    lowered = {name.lower(): name for name in known}
    close = get_close_matches(wanted.lower(), lowered, n=1, cutoff=0.5)
    return f"did you mean {lowered[close[0]]}? " if close else ""
