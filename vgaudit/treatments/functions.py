"""Functions in the source of a model: methods, their decorators, and free functions."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from types import CellType, CodeType, FunctionType, ModuleType

from vgaudit.errors import CannotRewrite


@dataclass(frozen=True, slots=True)
class Parsed:
    """The source of a function.

    Attributes:
        text: the source.
        definition: its tree, with the source's own columns; the first line is 2.
        start: the first line's number in its file.
    """

    text: str
    definition: ast.FunctionDef
    start: int

    @property
    def sha256(self) -> str:
        """Digest of the source, whatever its line ends."""
        whole = "\n".join(self.text.splitlines())
        return hashlib.sha256(whole.encode()).hexdigest()


def method_of(kind: type, code: CodeType) -> tuple[type, str] | None:
    """Returns the class in which a method stands, and its name there."""
    for base in kind.__mro__:
        for name, value in vars(base).items():
            function = isinstance(value, FunctionType)
            if function and layers_of(value)[-1].__code__ is code:
                return base, name
    return None


def layers_of(function: FunctionType) -> list[FunctionType]:
    """Returns a function and those that it wraps, the innermost last.

    Only a wrapper that holds the wrapped function in its closure, as decorators made
    with ``functools.wraps`` do, can be made again around another.
    """
    found = [function]
    while True:
        inner = found[-1].__dict__.get("__wrapped__")
        cells = found[-1].__closure__ or ()
        held = any(_content(cell) is inner for cell in cells)
        if not isinstance(inner, FunctionType) or not held:
            return found
        found.append(inner)


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def wrapped_again(layers: Sequence[FunctionType], made: FunctionType) -> FunctionType:
    """Returns the wrappers of a function around another one."""
    for old, wrapper in zip(reversed(layers[1:]), reversed(layers[:-1]), strict=True):
        closure = tuple(
            CellType(made) if _content(cell) is old else cell
            for cell in wrapper.__closure__ or ()
        )
        again = FunctionType(
            wrapper.__code__,
            wrapper.__globals__,
            wrapper.__name__,
            wrapper.__defaults__,
            closure,
        )
        again.__kwdefaults__ = wrapper.__kwdefaults__
        again.__doc__, again.__qualname__ = wrapper.__doc__, wrapper.__qualname__
        again.__dict__.update({**wrapper.__dict__, "__wrapped__": made})
        made = again
    return made


def parsed(function: FunctionType) -> Parsed:
    """Returns the source of a function.

    Raises:
        CannotRewrite: it is not there, or no ordinary ``def``.
    """
    try:
        lines, start = inspect.getsourcelines(function)
    except (OSError, TypeError) as error:
        raise CannotRewrite(
            f"VG701 the source of {function.__qualname__} is not available"
        ) from error
    indented = lines[0][:1].isspace()
    text = "".join(lines)
    # A block in front allows the indentation to stay, and with it the columns.
    tree = ast.parse(f"if True:\n{text}" if indented else f"\n{text}")
    name = function.__code__.co_name
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return Parsed(text, node, start)
    raise CannotRewrite(f"VG701 {name} is asynchronous or made at run time")


def named_in(space: dict[str, object], dotted: str) -> FunctionType | None:
    """Returns the function of a dotted name in the globals of another.

    Nothing is imported and no attribute computed: modules are looked into as they
    are.
    """
    first, *rest = dotted.split(".")
    found = space.get(first)
    for name in rest:
        found = vars(found).get(name) if isinstance(found, ModuleType) else None
    return found if isinstance(found, FunctionType) else None


def name_in(space: dict[str, object], code: CodeType) -> str | None:
    """Returns the name of a function in the globals of another."""
    for name, value in space.items():
        if isinstance(value, FunctionType) and layers_of(value)[-1].__code__ is code:
            return name
    return None
