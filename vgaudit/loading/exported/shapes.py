"""Shape expressions of an exported program: arithmetic, and nothing else.

torch hands them to ``sympy.sympify``, which evaluates them as Python.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from vgaudit.loading.wording import shorten

SYMBOL = re.compile(r"[a-z]{1,4}\d+")
SHAPE_FUNCTIONS = frozenset(
    {
        *("Symbol", "Integer", "Add", "Mul", "Pow", "Max", "Min", "Mod", "FloorDiv"),
        *("PythonMod", "CleanDiv", "CeilDiv", "ModularIndexing", "Where", "Abs"),
        *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "FloorToInt"),
        *("CeilToInt", "TruncToInt", "RoundToInt", "ToFloat", "IntTrueDiv"),
        *("FloatTrueDiv", "PowByNatural", "FloatPow", "Rational", "Float"),
    }
)
ASSUMPTIONS = frozenset({"positive", "integer", "nonnegative", "real", "finite"})
NODES = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Call, ast.keyword),
    *(ast.BinOp, ast.UnaryOp, ast.Compare, ast.Add, ast.Sub, ast.Mult, ast.Div),
    *(ast.FloorDiv, ast.Mod, ast.Pow, ast.USub, ast.UAdd),
    *(ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)
POWERS = frozenset({"Pow", "PowByNatural", "FloatPow"})
LARGEST, LARGEST_POWER, MOST_POWERS = 2**63, 16, 4
LONGEST = 10_000


class Refused(Exception):
    """A part of an archive that could run, or is none that torch writes."""


def check_expression(text: Any) -> None:
    """Refuses a shape expression that is more than arithmetic on symbols.

    torch hands it to ``sympy.sympify``, which evaluates it as Python.

    Raises:
        Refused: names what it holds.
    """
    if not isinstance(text, str) or len(text) > LONGEST:
        raise Refused("a shape expression that is no short text")
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise Refused(f"the shape expression {shorten(text)} is none") from error
    words: set[ast.AST] = set()
    powers = 0
    for node in ast.walk(tree):
        if not isinstance(node, NODES):
            kind = type(node).__name__
            raise Refused(f"{kind} in the shape expression {shorten(text)}")
        if isinstance(node, ast.Call):
            words |= _check_call(node, text)
        if (power := _power(node)) is not None:
            powers += 1
            _check_power(power, powers, text)
    for node in ast.walk(tree):
        if node not in words:
            _check_leaf(node, text)


def _check_call(node: ast.Call, text: str) -> set[ast.AST]:
    """Returns the parts of a call that are words and not values."""
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    assumed = {keyword.arg for keyword in node.keywords}
    if name not in SHAPE_FUNCTIONS or not assumed <= ASSUMPTIONS:
        raise Refused(f"a call in the shape expression {shorten(text)}")
    words: set[ast.AST] = {node.func}
    if name == "Symbol":
        spelled = [getattr(argument, "value", None) for argument in node.args]
        if not all(isinstance(s, str) and SYMBOL.fullmatch(s) for s in spelled):
            raise Refused(f"a symbol in the shape expression {shorten(text)}")
        words |= set(node.args)
    return words


def _power(node: ast.AST) -> ast.expr | None:
    """Returns the exponent of a power."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return node.right
    called = isinstance(node, ast.Call) and getattr(node.func, "id", "") in POWERS
    if called and isinstance(node, ast.Call) and len(node.args) == 2:
        return node.args[1]
    return None


def _check_power(power: ast.expr, count: int, text: str) -> None:
    """Refuses a power that could be a number of millions of digits."""
    value = power.value if isinstance(power, ast.Constant) else None
    small = isinstance(value, (int, float)) and 0 <= value <= LARGEST_POWER
    if not small or count > MOST_POWERS:
        raise Refused(f"a power in the shape expression {shorten(text)}")


def _check_leaf(node: ast.AST, text: str) -> None:
    if isinstance(node, ast.Name) and not SYMBOL.fullmatch(node.id):
        raise Refused(f"the name {node.id} in the shape expression {shorten(text)}")
    if isinstance(node, ast.Constant):
        value = node.value
        plain = isinstance(value, (bool, int, float)) and abs(value) < LARGEST
        if not plain:
            raise Refused(f"a value in the shape expression {shorten(text)}")
