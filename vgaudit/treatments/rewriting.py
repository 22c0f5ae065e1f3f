"""Replaces calls of activation functions in the source of the method that makes them.

The new method stands on a subclass of the module's class, so that the object, its
other methods, its parameters and ``isinstance`` stay; copies, threads, compilers
and checkpointing see ordinary code. Where a method calls a function that calls the
activation, a copy of that function becomes a method, too, and is called instead.
Only source that has run already is compiled.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from types import CodeType, FunctionType
from typing import Any

from torch import nn

from vgaudit.errors import CannotRewrite
from vgaudit.nn.made import MADE_BY, Making, made_again, named
from vgaudit.treatments.functions import (
    Parsed,
    layers_of,
    named_in,
    parsed,
    wrapped_again,
)
from vgaudit.treatments.source import CallEdit, Callee, Span, place

_OWNER = "vgaudit_owner"
_Calls = dict[Span, CallEdit]
_Made = tuple[str, Callee]
"""The method that a copied function becomes, and where it comes from."""


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
        methods |= _rewritten_method(kind, name, mine)

    def reduce(self: Any, protocol: Any) -> Any:
        # A class made at run time cannot be imported by name: make it again.
        reduced = super(made, self).__reduce_ex__(protocol)
        return (_revive, (named(kind), edits), *reduced[2:])

    space = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__reduce_ex__": reduce,
        "rewritten_from": kind,
        MADE_BY: Making(rewritten_class, kind, (edits,)),
        **methods,
    }
    made: Any = type(kind.__name__, (kind,), space)
    return made


def _revive(kind: Any, edits: tuple[CallEdit, ...]) -> nn.Module:
    made = rewritten_class(made_again(kind), edits)
    module = made.__new__(made)
    assert isinstance(module, nn.Module)
    return module


def _rewritten_method(
    kind: type, name: str, edits: Sequence[CallEdit]
) -> dict[str, Callable[..., Any]]:
    """Returns a method, and the functions that it calls as methods, by name."""
    layers = layers_of(getattr(kind, name))
    method = _unchanged(layers[-1], edits[0].sha256, f"{kind.__name__}.{name}")
    members: dict[str, Any] = {}
    callees: dict[Span, _Made] = {}
    by_place: dict[Span, list[CallEdit]] = {}
    for edit in edits:
        if edit.callee is not None:
            by_place.setdefault(edit.span, []).append(edit)
    for span, inside in by_place.items():
        callee = inside[0].callee
        assert callee is not None
        found = named_in(layers[-1].__globals__, callee.name)
        if found is None:
            raise CannotRewrite(
                f"{kind.__name__}.{name} knows no function {callee.name}",
                hint="use the code that the model was converted with",
            )
        made = f"{inside[0].name}_in_{callee.name.replace('.', '_')}"
        members[made] = _rewritten_function(found, callee, inside)
        members[f"{made}_before"] = staticmethod(found)
        callees[span] = made, callee
    owner = method.definition.args.args[0].arg
    calls = {edit.span: edit for edit in edits if edit.callee is None}
    definition = _Replacer(owner, calls, callees).visit(method.definition)
    made_method = _compiled_function(definition, layers[-1], method.start)
    return {**members, name: wrapped_again(layers, made_method)}


def _rewritten_function(
    function: FunctionType, callee: Callee, edits: Sequence[CallEdit]
) -> FunctionType:
    """Returns a function as a method: its owner comes first."""
    layers = layers_of(function)
    inner = _unchanged(layers[-1], callee.sha256, callee.name)
    calls = {edit.callee.span: edit for edit in edits if edit.callee is not None}
    definition = _Replacer(_OWNER, calls, {}).visit(inner.definition)
    arguments = definition.args
    first = arguments.posonlyargs if arguments.posonlyargs else arguments.args
    first.insert(0, ast.arg(_OWNER))
    made = _compiled_function(definition, layers[-1], inner.start)
    return wrapped_again(layers, made)


def _unchanged(function: FunctionType, sha256: str, name: str) -> Parsed:
    found = parsed(function)
    if found.sha256 != sha256:
        raise CannotRewrite(
            f"the source of {name} is not the one that was converted",
            hint="use the code that the model was converted with",
        )
    return found


class _Replacer(ast.NodeTransformer):
    """Puts the calls of modules in place of calls of functions.

    Args:
        owner: name of the argument that has the modules.
        calls: activations to replace, by place.
        callees: functions to replace by methods, by place.
    """

    def __init__(self, owner: str, calls: _Calls, callees: dict[Span, _Made]) -> None:
        self._owner = owner
        self._calls = {_in_tree(span): edit for span, edit in calls.items()}
        self._callees = {_in_tree(span): made for span, made in callees.items()}

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Replaces a call if it is one of those wanted."""
        where: Any = place(node)
        self.generic_visit(node)
        if where in self._callees:
            node.func = self._method_for(node.func, *self._callees[where])
            return node
        edit = self._calls.get(where)
        return node if edit is None else ast.copy_location(self._new(node, edit), node)

    def _method_for(self, function: ast.expr, made: str, callee: Callee) -> ast.expr:
        """Returns the method to call; of a function that varies, where it is that."""
        method = self._attribute(made)
        if callee.certain:
            return ast.copy_location(method, function)
        before = self._attribute(f"{made}_before")
        test = ast.Compare(function, [ast.Is()], [before])
        return ast.copy_location(ast.IfExp(test, method, function), function)

    def _new(self, node: ast.Call, edit: CallEdit) -> ast.Call:
        target = self._attribute(edit.name)
        method = _is_method(node)
        value = node.func.value if method else _first_argument(node)  # type: ignore[attr-defined]
        if not edit.keeps:
            return ast.Call(target, [value], [])
        if method:
            name = node.func.attr.rstrip("_")  # type: ignore[attr-defined]
            old: ast.expr = ast.Constant(name)
            rest = node.args
        else:
            old, rest = node.func, node.args[1:]
        named = [k for k in node.keywords if k.arg not in ("input", "inplace")]
        return ast.Call(target, [old, value, *rest], named)

    def _attribute(self, name: str) -> ast.Attribute:
        return ast.Attribute(ast.Name(self._owner, ast.Load()), name, ast.Load())


def _in_tree(span: Span) -> Span:
    # In the tree, the function's first line has number 2.
    return span[0] + 2, span[1] + 2, span[2], span[3]


def _first_argument(node: ast.Call) -> ast.expr:
    if node.args:
        return node.args[0]
    return next(k.value for k in node.keywords if k.arg == "input")


def _is_method(node: ast.Call) -> bool:
    """Tells ``x.relu()`` from ``F.relu(x)``: a function takes its input."""
    takes = bool(node.args) or any(k.arg == "input" for k in node.keywords)
    return isinstance(node.func, ast.Attribute) and not takes


def _compiled_function(
    definition: ast.FunctionDef, function: FunctionType, start: int
) -> FunctionType:
    """Returns a function of a changed definition in the old one's surroundings."""
    _without_evaluation(definition)
    code = _compiled(definition, function, start)
    cells = dict(
        zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    )
    closure = tuple(cells[free] for free in code.co_freevars)
    made = FunctionType(
        code, function.__globals__, code.co_name, function.__defaults__, closure
    )
    made.__kwdefaults__ = function.__kwdefaults__
    made.__doc__, made.__qualname__ = function.__doc__, function.__qualname__
    made.__annotations__ = dict(function.__annotations__)
    return made


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
    """Compiles a function where it stood: in a class, and a function's free variables.

    A class of the same name gives private names (``self.__x``) their old form.
    """
    holder = function.__qualname__.split(".")[-2:-1]
    body: list[ast.stmt] = [definition]
    if holder and holder != ["<locals>"]:
        body = [
            ast.ClassDef(
                name=holder[0], bases=[], keywords=[], body=body, decorator_list=[]
            )
        ]
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
        body=body,
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
