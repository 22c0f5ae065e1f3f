"""Every line of the plan on paper is computed again."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
_GIVEN = re.compile(r"^\| `(\w+)` \| ([\d.e+-]+) \|", re.MULTILINE)
_FOLLOWS = re.compile(r"^\| `(\w+)` \| `([^`]+)` \| ([\d.,]+) \|", re.MULTILINE)
_DOES: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def value(node: ast.expr, known: Mapping[str, float]) -> float:
    """Returns the value of a formula of names, numbers and max()."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return known[name]
        case ast.BinOp(left=left, op=op, right=right):
            return _DOES[type(op)](value(left, known), value(right, known))
        case ast.Call(func=ast.Name(id="max"), args=args):
            return max(value(arg, known) for arg in args)
    raise AssertionError(ast.dump(node))


def test_every_formula_gives_the_value_that_is_printed() -> None:
    page = PAGE.read_text(encoding="utf-8")
    known = {name: float(text) for name, text in _GIVEN.findall(page)}
    lines = _FOLLOWS.findall(page)

    assert len(known) >= 16
    assert len(lines) >= 20
    for name, formula, printed in lines:
        found = known[name] = value(ast.parse(formula, mode="eval").body, known)
        digits = len(printed.partition(".")[2])
        text = printed.replace(",", "")
        assert text == f"{found:.{digits}f}", name


def test_the_text_says_what_the_table_says() -> None:
    page = PAGE.read_text(encoding="utf-8")
    known = {name: float(text) for name, text in _GIVEN.findall(page)}
    for name, formula, _ in _FOLLOWS.findall(page):
        known[name] = value(ast.parse(formula, mode="eval").body, known)

    said = re.search(r"at about\s+([\d,]+) tokens", page)
    assert said is not None
    balance = known["tokens"] * known["wire"] / known["compute"]
    assert float(said[1].replace(",", "")) == pytest.approx(balance, abs=1)
    assert known["wire"] > known["compute"]
    assert 1.0 < known["ratio"] < 1.05
    share = (
        known["gpus"]
        * known["graph"]
        / (known["gpus"] * known["graph"] + known["batches"] * known["figures"])
    )
    assert 0.7 < share < 0.8
