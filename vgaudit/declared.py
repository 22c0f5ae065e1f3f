"""Options as they were given, held against the types that their fields declare.

Annotations promise nothing at run time: an optimizer that no rule knows would be
judged as another one. What is wrong is named, with the nearest of what is right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from vgaudit.errors import BadConfig
from vgaudit.plain import nearest, visible

T = TypeVar("T")

SHOWN = 60
"""The most characters of a value that a message shows."""

_WANTED: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    NoneType: "None",
    tuple: "a tuple of texts, such as ('a', 'b')",
    Mapping: "a dict",
}


def check_kind(name: str, given: object, kind: type[T]) -> T:
    """Returns what was given, if it is of a kind.

    Raises:
        BadConfig: it is not.
    """
    if not isinstance(given, kind):
        raise wrong(name, given, f"{kind.__name__}(…)")
    return given


def check_fields(
    name: str, options: object, kind: type[T], *, later: Collection[str] = ()
) -> T:
    """Returns options of a kind, every field of which has the type it is declared with.

    Args:
        name: of the argument, for the message.
        options: as the user gave them.
        kind: the dataclass that they should be.
        later: fields that are checked elsewhere.

    Raises:
        BadConfig: they are of another kind, or the first field that does not fit.
    """
    found = check_kind(name, options, kind)
    assert dataclasses.is_dataclass(kind)
    for field, declared in get_type_hints(kind).items():
        value = getattr(found, field)
        if field not in later and not fits(value, declared):
            guess = nearest(value, _words(declared)) if isinstance(value, str) else ""
            raise wrong(field, value, _wanted(declared), guess)
    return found


def fits(value: Any, kind: Any) -> bool:
    """Tells whether a value has a declared type; others than plain ones are taken."""
    origin = get_origin(kind) or kind
    if origin in (UnionType, Union):
        return any(fits(value, one) for one in get_args(kind))
    if origin is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if origin is tuple:
        inner = get_args(kind)[0]
        several = isinstance(value, Collection) and not isinstance(value, (str, bytes))
        return several and all(fits(v, inner) for v in value)
    if origin in (int, float):
        number = Integral if origin is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, origin) if origin in _WANTED else True


def _words(kind: Any) -> tuple[str, ...]:
    """Returns the words that a declared type allows."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return tuple(word for one in get_args(kind) for word in _words(one))


def _wanted(kind: Any) -> str:
    if get_origin(kind) in (UnionType, Union):
        return " or ".join(_wanted(one) for one in get_args(kind))
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    return _WANTED.get(get_origin(kind) or kind, str(kind))


def wrong(name: str, value: object, wanted: str, guess: str = "") -> BadConfig:
    """Returns the refusal of a value, with what is wanted in its place."""
    shown = visible(repr(value), length=SHOWN)
    return BadConfig(f"{name} is {shown}", hint=f"{guess}give {wanted}")
