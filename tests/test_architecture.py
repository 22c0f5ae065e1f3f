"""Who may import whom (``docs/architecture.md``), what names are never used, sizes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vgaudit"

WORDS = {
    "conversion",
    "declared",
    "errors",
    "estimates",
    "facts",
    "findings",
    "fixing",
    "flow",
    "job",
    "plain",
    "ranks",
    "retraining",
    "scores",
    "suite",
    "terms",
    "typed",
}
JUDGEMENT = {
    "baseline",
    "causes",
    "compare",
    "config",
    "explain",
    "gate",
    "judge",
    "reports",
    "rules",
}
PARTS = {
    "data",
    "distributed",
    "loading",
    "nn",
    "optim",
    "probe",
    "training",
    "treatments",
}
TORCH = PARTS | {"doctor", "measure", "scoring", "spreading", "repair", "worker"}

# What each part may import of vgaudit, beside itself and the words. The package
# itself (its version) counts as a word.
ALLOWED: dict[str, set[str]] = {
    **{name: set() for name in WORDS},
    **{name: {*JUDGEMENT} for name in JUDGEMENT},
    "nn": set(),
    "optim": set(),
    "sandbox": set(),
    "data": set(),
    "distributed": {"optim"},
    "loading": {"distributed"},
    "probe": {"data", "distributed"},
    "treatments": PARTS - {"training"},
    "training": PARTS,
    # Judges the scan that it repairs by, and names findings as the rules do.
    "repair": PARTS | {"judge", "rules"},
    "spreading": {"distributed", "loading", "probe", "treatments"},
    "measure": {"loading", "data", "distributed", "probe", "spreading", "treatments"},
    "scoring": {"data", "measure", "probe", "training"},
    "doctor": set(),
    "worker": TORCH | {"judge", "sandbox"},
    "boot": {"worker"},
    "outcome": JUDGEMENT | {"probe"},
    "integrations": {"api", "judge", "outcome", "probe", "reports"},
    "api": TORCH | JUDGEMENT | {"outcome"},
    "cli": JUDGEMENT | {"sandbox"},
    "__init__": JUDGEMENT | TORCH | {"api"},
    "__main__": {"cli"},
    "pytest_plugin": {"api", "judge"},
}
LIBRARIES = {
    **{name: set() for name in WORDS},
    "typed": {"pydantic"},
    "sandbox": set(),
    **{name: {"pydantic", "rich", "jinja2"} for name in JUDGEMENT},
    "cli": {"typer", "rich"},
    "__init__": set(),
    "__main__": set(),
}
HEAVY = {"torch", "torchvision", "numpy", "safetensors", "timm", "transformers"}
BANNED_MODULES = {"utils", "util", "helpers", "helper", "common", "misc", "base"}
BANNED_ENDINGS = re.compile(
    "(Manager|Handler|Engine|Context|Helper|Util|Utils|Info|Data|Base)$"
)


@dataclass(frozen=True)
class Module:
    """One source file of the package."""

    path: Path

    @property
    def name(self) -> str:
        return ".".join(self.path.relative_to(ROOT).with_suffix("").parts)

    @property
    def part(self) -> str:
        return self.path.relative_to(PACKAGE).with_suffix("").parts[0]

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"))

    def imports(self) -> Iterator[tuple[str, int]]:
        """Yields what is imported, with its line; types alone are no import."""
        skipped = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                skipped.update(map(_place, ast.walk(node)))
            elif _place(node) in skipped:
                continue
            elif isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.name}:{node.lineno}: relative import"
                for alias in node.names:
                    yield f"{node.module}.{alias.name}", node.lineno

    def functions(self) -> Iterator[ast.FunctionDef]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef):
                yield node


def _place(node: ast.AST) -> tuple[int, int]:
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


MODULES = [Module(path) for path in sorted(PACKAGE.rglob("*.py"))]
EACH = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)


def imported_part(name: str) -> str | None:
    """Returns which part of vgaudit an imported name belongs to."""
    parts = name.split(".")
    if parts[0] != "vgaudit":
        return None
    known = {module.part for module in MODULES}
    return parts[1] if len(parts) > 1 and parts[1] in known else "__init__"


@EACH
def test_imports_follow_the_table(module: Module) -> None:
    own = {module.part, "__init__", *WORDS}
    allowed = ALLOWED[module.part] | own
    wrong = [
        f"line {line}: {name}"
        for name, line in module.imports()
        if (part := imported_part(name)) is not None and part not in allowed
    ]

    assert [] == wrong


@EACH
def test_libraries_follow_the_table(module: Module) -> None:
    if module.part not in LIBRARIES:
        return
    known = {"pydantic", "rich", "jinja2", "typer", "click"} | HEAVY
    wrong = [
        f"line {line}: {name}"
        for name, line in module.imports()
        if (library := name.partition(".")[0]) in known
        and library not in LIBRARIES[module.part]
    ]

    assert [] == wrong


def test_the_probe_knows_batches_and_nothing_else_of_the_data() -> None:
    # What puts modules back after user code ran is the same for both.
    known = ("vgaudit.data.batch.", "vgaudit.data.attributes.")
    wrong = [
        f"{module.name}:{line}: {name}"
        for module in MODULES
        if module.part == "probe"
        for name, line in module.imports()
        if name.startswith("vgaudit.data") and not name.startswith(known)
    ]

    assert [] == wrong


def test_every_part_is_in_the_table() -> None:
    assert {module.part for module in MODULES} <= set(ALLOWED)


@EACH
def test_names_say_what_things_are(module: Module) -> None:
    assert not BANNED_MODULES & set(
        module.path.relative_to(PACKAGE).with_suffix("").parts
    )
    classes = [n.name for n in ast.walk(module.tree) if isinstance(n, ast.ClassDef)]
    if module.part != "rules":  # There, a name is the name of a defect.
        assert [] == [name for name in classes if BANNED_ENDINGS.search(name)]


@EACH
def test_only_the_command_line_prints(module: Module) -> None:
    if module.part == "cli":
        return
    calls = [
        node.lineno
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]

    assert [] == calls


@EACH
def test_files_and_functions_are_short(module: Module) -> None:
    lines = module.path.read_text(encoding="utf-8").count("\n")
    assert lines <= 400
    for function in module.functions():
        first = function.body[0].lineno if module.part == "cli" else function.lineno
        length = (function.end_lineno or first) - first + 1
        assert length <= (30 if module.part == "cli" else 60), function.name


@EACH
def test_every_module_says_what_it_is(module: Module) -> None:
    if module.path.read_text(encoding="utf-8").strip():
        assert ast.get_docstring(module.tree)


def test_public_names_are_sorted_and_there() -> None:
    import vgaudit

    assert sorted(vgaudit.__all__) == vgaudit.__all__
    assert set(vgaudit.__all__) <= set(dir(vgaudit))
    for name in vgaudit.__all__:
        assert getattr(vgaudit, name) is not None
