"""The table of bad inputs is whole, and every test that it names is there."""

from __future__ import annotations

import ast
import re
import warnings
from pathlib import Path

import pytest
import torch

from vgaudit.measure import _alerts

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "bad-inputs.md"
ROW = re.compile(r"\| (\d+) \| (.+) \| (.+) \| (.+) \| (.+) \|")
TEST = re.compile(r"`(\w+\.py)::(\w+)`")
CODES = {"1", "2", "3", "4", "70", "130", "141", "143", "as measured", "as trained"}


def rows() -> list[tuple[str, ...]]:
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    found = (ROW.fullmatch(line) for line in lines)
    return [match.groups() for match in found if match]


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_row_is_there_once() -> None:
    assert [int(number) for number, *_ in rows()] == list(range(1, 98))
    assert len({what for _, what, *_ in rows()}) == 97


def test_every_row_has_an_exit_code() -> None:
    for number, _, _, codes, _ in rows():
        assert codes == "–" or set(codes.split("; ")) <= CODES, number


def test_every_test_that_is_named_is_there() -> None:
    files = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}
    known = {name: functions(path) for name, path in files.items()}
    for number, *_, tests in rows():
        named = TEST.findall(tests)
        assert named, f"row {number} has no test"
        assert ", ".join(f"`{file}::{test}`" for file, test in named) == tests
        for file, test in named:
            assert test in known.get(file, set()), f"row {number}: {file}::{test}"


def test_operations_that_are_not_deterministic_are_listed() -> None:
    """Filling in place by an index with repeats has no order of its own."""
    before = torch.are_deterministic_algorithms_enabled()
    with _alerts() as found:
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))

    assert found == ["put_"]
    assert torch.are_deterministic_algorithms_enabled() == before


def warned() -> None:
    with _alerts():
        warnings.warn("the model's own", UserWarning, stacklevel=1)


def test_other_warnings_pass_through() -> None:
    with pytest.warns(UserWarning, match="the model's own"):
        warned()
