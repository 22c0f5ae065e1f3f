"""Plain values out of a file or a process, checked and made into typed ones."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from vgaudit.plain import visible

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


class Mismatch(ValueError):
    """A record does not have the shape that it should have; the first fault in it.

    Its text is the place and the fault, with nothing hidden in either.

    Attributes:
        path: keys and indices from the record to the fault; empty for the record.
        kind: pydantic's name of the fault, as ``extra_forbidden``.
        fault: what is wrong, in words.
    """

    def __init__(self, path: tuple[str, ...], kind: str, fault: str) -> None:
        place = visible(".".join(path)) or "top level"
        super().__init__(f"{place}: {visible(fault)}")
        self.path, self.kind, self.fault = path, kind, fault


def typed(kind: type[T], record: object) -> T:
    """Returns a record as a dataclass or a model of pydantic.

    Args:
        kind: what it should be.
        record: dicts, lists, strings, numbers, booleans and None.

    Raises:
        Mismatch: it is something else.
    """
    from pydantic import ValidationError

    try:
        made: T = adapter(kind).validate_python(record)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = tuple(str(part) for part in first["loc"])
        raise Mismatch(path, first["type"], str(first["msg"])) from error
    return made


def adapter(kind: type[T]) -> TypeAdapter[T]:
    """Returns what checks records of a kind; made once, when first asked for."""
    return _made(cast(Hashable, kind))


@cache
def _made(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
