"""Classes that are made at run time, in a form that pickle can write.

Pickle names a class by its module and name, where one that was made is not found. What
can be named is the function that made it and what it was made of, which may have been
made itself: a method was rewritten, then a parameter rotated, or the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

MADE_BY = "_vgaudit_made_by"
"""The attribute of such a class that says how it was made."""


class Making(NamedTuple):
    """How a class is made again.

    Attributes:
        maker: takes the class beneath, then the arguments; importable by its name.
        beneath: the class that it is made of; once named, what ``named`` gave.
        arguments: what can be pickled.
    """

    maker: Callable[..., Any]
    beneath: Any
    arguments: tuple[Any, ...] = ()


def named(kind: Any) -> Any:
    """Returns a class, or how it is made where it has no name to import."""
    making = kind.__dict__.get(MADE_BY)
    if making is None:
        return kind
    return making._replace(beneath=named(making.beneath))


def made_again(what: Any) -> Any:
    """Returns the class that ``named`` described."""
    if not isinstance(what, Making):
        return what
    return what.maker(made_again(what.beneath), *what.arguments)
