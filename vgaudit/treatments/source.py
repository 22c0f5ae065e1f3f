"""Finds the call of an activation in the source of a model."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from types import FunctionType

from torch import nn

from vgaudit.errors import CannotRewrite
from vgaudit.treatments.callsites import CallSite, Positions, Within
from vgaudit.treatments.functions import (
    Parsed,
    layers_of,
    method_of,
    name_in,
    named_in,
    parsed,
)

Span = tuple[int, int, int, int]
"""First and last line, counted from the function's first; first and last column."""

_OPERATION = "OpOverload."


@dataclass(frozen=True, slots=True)
class Callee:
    """A function that is no method, called by one, in which an activation is called.

    Attributes:
        name: in the globals of the method, perhaps dotted.
        span: where the activation is called in it.
        sha256: of its source.
        certain: the method calls it by that name; else it is compared when it runs.
    """

    name: str
    span: Span
    sha256: str
    certain: bool


@dataclass(frozen=True, slots=True)
class CallEdit:
    """One call to replace by a call of a module.

    Attributes:
        method: the method's name.
        span: where the call is in it: of the activation, or of the callee.
        name: attribute that holds the new module.
        function: the function's name as written, for messages.
        keeps: the old function is passed on, for base(x) + PL(x).
        sha256: of the method's source.
        callee: the function that calls the activation, if the method does not.
    """

    method: str
    span: Span
    name: str
    function: str
    keeps: bool
    sha256: str
    callee: Callee | None = None


@dataclass(frozen=True, slots=True)
class Located:
    """A call found in the source.

    Attributes:
        method: the method's name. span: where the call is in it.
        function: as written, ``F.relu``.
        attribute: name of the module's attribute that is called, or empty.
        sha256: of the method's source.
        callee: the function that calls the activation, if the method does not.
    """

    method: str
    span: Span
    function: str
    attribute: str
    sha256: str
    callee: Callee | None = None

    @property
    def place(self) -> str:
        """The function that makes the call, for messages."""
        return self.method if self.callee is None else self.callee.name


def locate(module: nn.Module, site: CallSite) -> Located:
    """Returns the call in the source of the module's class.

    Raises:
        CannotRewrite: the source is not there, or the call cannot be replaced.
    """
    name, function = _method(module, site)
    method = parsed(function)
    span = _relative(site.span, method)
    call = find(method, span)
    if site.within is not None:
        callee, made = _callee(call, function, site.within)
        return Located(name, span, made, "", method.sha256, callee)
    attribute = ""
    if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
        owner = method.definition.args.args[0].arg
        attribute = call.func.attr if call.func.value.id == owner else ""
    return Located(name, span, ast.unparse(call.func), attribute, method.sha256)


def _method(module: nn.Module, site: CallSite) -> tuple[str, FunctionType]:
    kind, code = type(module), site.code
    found = method_of(kind, code)
    if found is None:
        raise CannotRewrite(
            f"VG701 {code.co_qualname} is generated or no method of "
            f"{kind.__name__}: its source cannot be edited"
        )
    base, name = found
    defined: FunctionType = vars(base)[name]
    if next(vars(c)[name] for c in kind.__mro__ if name in vars(c)) is not defined:
        raise CannotRewrite(
            f"VG701 {code.co_qualname} is overridden and called by super()"
        )
    return name, layers_of(defined)[-1]


def _callee(call: ast.Call, method: FunctionType, within: Within) -> tuple[Callee, str]:
    """Returns the function between, and the activation as written in it."""
    if within.code.co_qualname.startswith(_OPERATION):
        raise CannotRewrite(
            "VG701 an operation of an exported program, which has no source: convert "
            "the eager model, and export it again"
        )
    written = ast.unparse(call.func)
    function = named_in(method.__globals__, written)
    certain = function is not None and _is(function, within)
    name = written if certain else name_in(method.__globals__, within.code)
    function = named_in(method.__globals__, name) if name is not None else None
    if name is None or function is None or not _is(function, within):
        raise CannotRewrite(
            f"VG701 called by {within.code.co_qualname}, which is no method, nor a "
            f"function that {method.__qualname__} calls by a name of its own file"
        )
    inner = parsed(layers_of(function)[-1])
    span = _relative(within.span, inner)
    callee = Callee(name=name, span=span, sha256=inner.sha256, certain=certain)
    return callee, ast.unparse(find(inner, span).func)


def _is(function: FunctionType, within: Within) -> bool:
    """Tells whether a function is the one that ran, with the decorators that ran."""
    codes = [layer.__code__ for layer in layers_of(function)]
    return codes[-1] is within.code and set(within.around) <= set(codes)


def _relative(span: Positions, function: Parsed) -> Span:
    first, last, left, right = span
    if first is None or last is None or left is None or right is None:
        raise CannotRewrite("VG701 the source keeps no positions of calls")
    return first - function.start, last - function.start, left, right


def find(function: Parsed, span: Span) -> ast.Call:
    """Returns the call at a place.

    Raises:
        CannotRewrite: none is there, or its result is thrown away.
    """
    # In the tree, the function's first line has number 2.
    wanted = (span[0] + 2, span[1] + 2, span[2], span[3])
    calls = [
        node
        for node in ast.walk(function.definition)
        if isinstance(node, ast.Call) and place(node) == wanted
    ]
    if not calls:
        raise CannotRewrite(
            "VG701 no plain call stands at the place where the activation ran"
        )
    for node in ast.walk(function.definition):
        if isinstance(node, ast.Expr) and node.value is calls[0]:
            raise CannotRewrite(
                "VG701 the call works in place and its result is not used; write "
                "`x = f(x)` to have it converted"
            )
    return calls[0]


def place(node: ast.Call) -> tuple[int, int | None, int, int | None]:
    """Returns first and last line and column of a call in its tree."""
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset
