"""Replaces calls of activation functions in the source of the method that makes them.

The new method stands on a subclass of the module's class, so that the object, its
other methods, its parameters and ``isinstance`` stay; copies, threads, compilers
and checkpointing see ordinary code. Only source that has run already is compiled.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import CellType, CodeType, FunctionType
from typing import Any

from torch import nn

from vgaudit.errors import CannotRewrite
from vgaudit.treatments.recorded import CallSite

Span = tuple[int, int, int, int]
"""First and last line, counted from the method's first; first and last column."""


@dataclass(frozen=True, slots=True)
class CallEdit:
    """One call to replace by a call of a module.

    Attributes:
        method: the method's name.
        span: where the call is in it.
        name: attribute that holds the new module.
        function: the function's name as written, for messages.
        keeps: the old function is passed on, for base(x) + PL(x).
        sha256: of the method's source.
    """

    method: str
    span: Span
    name: str
    function: str
    keeps: bool
    sha256: str


@dataclass(frozen=True, slots=True)
class Located:
    """A call found in the source.

    Attributes:
        method: the method's name. span: where the call is in it.
        function: as written, ``F.relu``.
        attribute: name of the module's attribute that is called, or empty.
        sha256: of the method's source.
        flag: a positional True or False stands in the call: perhaps ``inplace``.
    """

    method: str
    span: Span
    function: str
    attribute: str
    sha256: str
    flag: bool


def locate(module: nn.Module, site: CallSite) -> Located:
    """Returns the call in the source of the module's class.

    Raises:
        CannotRewrite: the source is not there, or the call cannot be replaced.
    """
    name, function = _method(type(module), site.code)
    text, tree, start = _parsed(function)
    definition = _definition(tree, name)
    first, last, left, right = site.span
    if first is None or last is None or left is None or right is None:
        raise CannotRewrite("VG701 the source keeps no positions of calls")
    span = (first - start, last - start, left, right)
    call, discarded = _find(definition, span)
    if discarded:
        raise CannotRewrite(
            "VG701 the call works in place and its result is not used; write "
            "`x = f(x)` to have it converted"
        )
    attribute = ""
    if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
        owner = definition.args.args[0].arg
        attribute = call.func.attr if call.func.value.id == owner else ""
    return Located(
        method=name,
        span=span,
        function=ast.unparse(call.func),
        attribute=attribute,
        sha256=digest(text),
        flag=any(_is_flag(arg) for arg in call.args),
    )


def digest(text: str) -> str:
    """Returns the sha256 of source code, whatever its line ends."""
    return hashlib.sha256("\n".join(text.splitlines()).encode()).hexdigest()


def _is_flag(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, bool)


def _method(kind: type, code: CodeType) -> tuple[str, FunctionType]:
    for base in kind.__mro__:
        for name, value in vars(base).items():
            if not isinstance(value, FunctionType):
                continue
            function = layers_of(value)[-1]
            if function.__code__ is not code:
                continue
            if inspect.getattr_static(kind, name) is not value:
                raise CannotRewrite(
                    f"VG701 {code.co_qualname} is overridden and called by super()"
                )
            return name, function
    raise CannotRewrite(
        f"VG701 {code.co_qualname} is generated or no method of "
        f"{kind.__name__}: its source cannot be edited"
    )


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


def _wrapped_again(layers: Sequence[FunctionType], made: FunctionType) -> FunctionType:
    """Returns the wrappers of a method around another one."""
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


def _parsed(function: FunctionType) -> tuple[str, ast.Module, int]:
    """Returns source, tree with the source's own columns, and first line."""
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
    return text, tree, start


def _definition(tree: ast.Module, name: str) -> ast.FunctionDef:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    raise CannotRewrite(f"VG701 {name} is asynchronous or made at run time")


def _find(definition: ast.FunctionDef, span: Span) -> tuple[ast.Call, bool]:
    """Returns the call at a place, and whether its result is thrown away."""
    # In the tree, the method's first line has number 2.
    wanted = (span[0] + 2, span[1] + 2, span[2], span[3])
    for node in ast.walk(definition):
        value = node.value if isinstance(node, ast.Expr) else None
        if isinstance(value, ast.Call) and _place(value) == wanted:
            return value, True
    for node in ast.walk(definition):
        if isinstance(node, ast.Call) and _place(node) == wanted:
            return node, False
    raise CannotRewrite(
        "VG701 no plain call stands at the place where the activation ran"
    )


def _place(node: ast.Call) -> tuple[int, int | None, int, int | None]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


class _Replacer(ast.NodeTransformer):
    """Puts the calls of modules in place of calls of functions."""

    def __init__(self, edits: Sequence[CallEdit], owner: str) -> None:
        self._edits = {
            (e.span[0] + 2, e.span[1] + 2, e.span[2], e.span[3]): e for e in edits
        }
        self._owner = owner

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Replaces a call if it is one of those wanted."""
        edit = self._edits.get(_place(node))  # type: ignore[arg-type]
        self.generic_visit(node)
        if edit is None:
            return node
        owner = ast.Name(self._owner, ast.Load())
        target = ast.Attribute(owner, edit.name, ast.Load())
        method = _is_method(node)
        value = node.func.value if method else _first_argument(node)  # type: ignore[attr-defined]
        if not edit.keeps:
            return ast.copy_location(ast.Call(target, [value], []), node)
        if method:
            name = node.func.attr.rstrip("_")  # type: ignore[attr-defined]
            old: ast.expr = ast.Constant(name)
            rest = node.args
        else:
            old, rest = node.func, node.args[1:]
        named = [k for k in node.keywords if k.arg not in ("input", "inplace")]
        return ast.copy_location(ast.Call(target, [old, value, *rest], named), node)


def _first_argument(node: ast.Call) -> ast.expr:
    if node.args:
        return node.args[0]
    return next(k.value for k in node.keywords if k.arg == "input")


def _is_method(node: ast.Call) -> bool:
    """Tells ``x.relu()`` from ``F.relu(x)``: a function takes its input."""
    takes = bool(node.args) or any(k.arg == "input" for k in node.keywords)
    return isinstance(node.func, ast.Attribute) and not takes


def rewritten_class(kind: Any, edits: tuple[CallEdit, ...]) -> Any:
    """Returns a subclass whose methods call modules instead of functions.

    Raises:
        CannotRewrite: the source is not what the edits were planned on.
    """
    return _rewritten_class(kind, edits)


@cache
def _rewritten_class(kind: Any, edits: tuple[CallEdit, ...]) -> Any:
    methods: dict[str, Any] = {}
    for name in dict.fromkeys(edit.method for edit in edits):
        mine = [edit for edit in edits if edit.method == name]
        methods[name] = _rewritten_method(kind, name, mine)

    def reduce(self: Any, protocol: Any) -> Any:
        # A class made at run time cannot be imported by name: make it again.
        reduced = super(made, self).__reduce_ex__(protocol)
        return (_revive, (kind, edits), *reduced[2:])

    space = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__reduce_ex__": reduce,
        "rewritten_from": kind,
        **methods,
    }
    made: Any = type(kind.__name__, (kind,), space)
    return made


def _revive(kind: Any, edits: tuple[CallEdit, ...]) -> nn.Module:
    made = rewritten_class(kind, edits)
    module = made.__new__(made)
    assert isinstance(module, nn.Module)
    return module


def _rewritten_method(
    kind: type, name: str, edits: Sequence[CallEdit]
) -> Callable[..., Any]:
    layers = layers_of(getattr(kind, name))
    function = layers[-1]
    text, tree, start = _parsed(function)
    if digest(text) != edits[0].sha256:
        raise CannotRewrite(
            f"the source of {kind.__name__}.{name} is not the one that was converted",
            hint="use the code that the model was converted with",
        )
    definition = _definition(tree, name)
    replacer = _Replacer(edits, definition.args.args[0].arg)
    definition = replacer.visit(definition)
    _without_evaluation(definition)
    code = _compiled(definition, function, start)
    cells = dict(
        zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    )
    closure = tuple(cells[free] for free in code.co_freevars)
    made = FunctionType(
        code, function.__globals__, name, function.__defaults__, closure
    )
    made.__kwdefaults__ = function.__kwdefaults__
    made.__doc__, made.__qualname__ = function.__doc__, function.__qualname__
    made.__annotations__ = dict(function.__annotations__)
    return _wrapped_again(layers, made)


def _without_evaluation(definition: ast.FunctionDef) -> None:
    """Removes what is evaluated when the method is defined; the old values are kept."""
    arguments = definition.args
    given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    for argument in [*given, arguments.vararg, arguments.kwarg]:
        if argument is not None:
            argument.annotation = None
    definition.returns = None
    definition.decorator_list = []
    arguments.defaults = [ast.Constant(None) for _ in arguments.defaults]
    arguments.kw_defaults = [
        None if default is None else ast.Constant(None)
        for default in arguments.kw_defaults
    ]


def _compiled(
    definition: ast.FunctionDef, function: FunctionType, start: int
) -> CodeType:
    """Compiles a method inside a class and a function, for its free variables."""
    holder = function.__qualname__.split(".")[-2:-1] or ["Holder"]
    body: list[ast.stmt] = [definition]
    space = ast.ClassDef(
        name=holder[0], bases=[], keywords=[], body=body, decorator_list=[]
    )
    free = [name for name in function.__code__.co_freevars if name != "__class__"]
    outer = ast.FunctionDef(
        name="around",
        args=ast.arguments(
            posonlyargs=[],
            args=[ast.arg(name) for name in free],
            kwonlyargs=[],
            kw_defaults=[],
            defaults=[],
        ),
        body=[space],
        decorator_list=[],
    )
    tree = ast.Module([outer], [])
    ast.fix_missing_locations(definition)
    ast.increment_lineno(definition, start - 2)
    ast.fix_missing_locations(tree)
    whole = compile(tree, function.__code__.co_filename, "exec", dont_inherit=True)
    found = [code for code in _codes(whole) if code.co_name == definition.name]
    return found[0]


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes(constant)
