"""Settings of one method, from ``NAME=VALUE`` texts to a dataclass."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from vgaudit.errors import BadConfig
from vgaudit.plain import nearest, visible

T = TypeVar("T")

LARGEST = 1e19
"""The largest number of a setting.

About the square root of the largest float32, 3.4e38. Optimizers hand products of two
settings to kernels of float32, such as lr · weight decay, and quotients such as
lr / (1 - beta1), where 1 - beta1 is 1.1e-16 at the least: all of these stay finite.
"""

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
"""How a setting is switched on and off."""


def read_settings(kind: type[T], given: Mapping[str, str], *, method: str) -> T:
    """Returns a dataclass whose fields are what the user gave, the rest defaults.

    Fields may be ``int``, ``float``, ``bool``, ``str``, a ``Literal`` of texts, or
    one of these with None (``none``).

    Args:
        kind: the dataclass; every field has a default.
        given: texts by name.
        method: for the message.

    Raises:
        BadConfig: an unknown name, or a text that is no such value.
    """
    assert dataclasses.is_dataclass(kind)
    kinds = get_type_hints(kind)
    names = names_of(kind)
    values = {}
    for name, text in given.items():
        key = name.replace("-", "_")
        if key not in names:
            raise unknown_setting(name, names, method)
        values[key] = _value(name, text, kinds[key], method)
    return kind(**values)


def check_positive(
    own: object, names: Sequence[str], *, method: str, zero: bool = False
) -> None:
    """Makes sure that numbers among settings are positive; None is left alone.

    Args:
        own: the settings.
        names: of the numbers.
        method: for the message.
        zero: may be 0 too.

    Raises:
        BadConfig: one is not.
    """
    for name in names:
        value = getattr(own, name)
        if value is not None and not (value > 0 or (zero and value == 0)):
            wanted = "0 or more" if zero else "a number above 0"
            raise _wrong(name, f"{value:g}", wanted, method)


def names_of(settings: object) -> tuple[str, ...]:
    """Returns the names of settings: the fields of their dataclass."""
    assert dataclasses.is_dataclass(settings)
    return tuple(field.name for field in dataclasses.fields(settings))


def unknown_setting(name: str, names: Sequence[str], method: str) -> BadConfig:
    """Returns the error for a setting of a name that is not among those known."""
    known = f"known: {', '.join(names)}" if names else f"{method} has none"
    return BadConfig(
        f"{method} has no setting '{visible(name)}'",
        hint=f"{nearest(name, names)}{known}",
    )


def _value(name: str, text: str, kind: Any, method: str) -> Any:
    if get_origin(kind) in (UnionType, Union):
        kinds = [k for k in get_args(kind) if k is not NoneType]
        return None if text.lower() == "none" else _value(name, text, kinds[0], method)
    if get_origin(kind) is Literal:
        if text in get_args(kind):
            return text
        raise _wrong(name, text, f"one of {', '.join(get_args(kind))}", method)
    if kind is bool:
        if text.lower() in (*TRUE, *FALSE):
            return text.lower() in TRUE
        raise _wrong(name, text, "yes or no", method)
    if kind is str:
        return text
    what = "a whole number" if kind is int else "a number"
    try:
        value = kind(text)
    except ValueError:
        raise _wrong(name, text, what, method) from None
    if not math.isfinite(value):
        raise _wrong(name, text, what, method)
    if kind is float and abs(value) > LARGEST:
        raise _wrong(name, text, f"{what} up to {LARGEST:g}", method)
    return value


def _wrong(name: str, text: str, wanted: str, method: str) -> BadConfig:
    return BadConfig(
        f"setting {name} of {method} is '{visible(text)}'", hint=f"give {wanted}"
    )
