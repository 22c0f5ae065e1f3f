"""Every example of the documents runs, or says why it does not.

The line before each fenced block is a comment that a reader does not see::

    <!-- runs -->
    <!-- runs: exit 1; MODEL = fixtures/models.py:net; slow -->
    <!-- not run: needs MNIST -->

The blocks of a page run in their order, in one folder and one scope
(``tests/docs/stage.py``). ``exit`` is the code of the last command, ``NAME = TEXT``
puts a text in a place-holder's stead, ``then`` is an expression to evaluate after a
block of Python, ``fresh`` first removes what the blocks before wrote, ``slow`` leaves
it to the runs that take long.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.docs import stage
from vgaudit.config.read import settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
SHELL, PYTHON, CONFIG = {"", "sh", "text"}, {"python"}, {"toml"}
NEEDS = {
    "howto-lightning.md": ("lightning",),
    "howto-loops.md": ("tensorboard",),
    "howto-transformers.md": ("accelerate", "transformers"),
}
"""What is installed for development alone."""
_FENCE = re.compile(
    r"(?:^[ ]*<!-- (?P<mark>.*?) -->\n)?^(?P<indent>[ ]*)```(?P<kind>[^\n]*)\n"
    r"(?P<text>.*?)^[ ]*```[ ]*$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    mark: str
    kind: str
    text: str
    exit: int = 0
    slow: bool = False
    fresh: bool = False
    then: str = ""
    stand_ins: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.mark.partition(":")[0] == "runs"


def blocks(page: Path) -> list[Block]:
    """Returns the fenced blocks of a page with what their marks say."""
    source = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(source):
        line = source.count("\n", 0, match.start("kind")) + 1
        mark = match["mark"] or ""
        found.append(
            Block(page, line, mark, match["kind"], match["text"], **_options(mark))
        )
    return found


def _options(mark: str) -> dict:
    """Returns what stands behind ``runs:``."""
    word, _, rest = mark.partition(":")
    options: dict = {"stand_ins": {}}
    if word != "runs":
        return options
    for part in filter(None, map(str.strip, rest.split(";"))):
        name, equals, value = part.partition(" = ")
        if equals:
            options["stand_ins"][name] = value
        elif part in {"slow", "fresh"}:
            options[part] = True
        elif part.startswith("exit "):
            options["exit"] = int(part.removeprefix("exit "))
        elif part.startswith("then "):
            options["then"] = part.removeprefix("then ")
        else:
            raise AssertionError(f"a mark says {part!r}")
    return options


def commands(block: Block) -> list[list[str]]:
    """Returns the words of each command in a block, place-holders replaced."""
    text = block.text.replace("\\\n", " ")
    for name, stand_in in block.stand_ins.items():
        text = re.sub(rf"\b{re.escape(name)}\b(?!=)", stand_in, text)
    lines = [line.strip() for line in text.splitlines()]
    # Beside a prompt, what has none is output.
    prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [shlex.split(line, comments=True) for line in prompted or lines if line]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_runs_or_says_why_not(page: Path) -> None:
    silent = [
        block.where
        for block in blocks(page)
        if not block.runs and not re.fullmatch(r"not run: \S.{5,}", block.mark)
    ]
    foreign = [
        block.where
        for block in blocks(page)
        if block.runs and block.kind not in SHELL | PYTHON | CONFIG
    ]

    assert [] == silent
    assert [] == foreign


@pytest.fixture
def desk(tmp_path, monkeypatch, here):
    """A folder with what the documents speak of, as the working folder."""
    stage.furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.partition(".")[0] in {"mypackage", "models"}:
            del sys.modules[name]


def _cases(slow: bool) -> list[Path]:
    return [
        page
        for page in PAGES
        if any(block.runs and block.slow == slow for block in blocks(page))
    ]


@pytest.mark.parametrize("page", _cases(slow=False), ids=lambda page: page.name)
def test_examples_run(page: Path, desk: Path, cli) -> None:
    play(page, cli, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", _cases(slow=True), ids=lambda page: page.name)
def test_examples_that_take_long_run(page: Path, desk: Path, cli) -> None:
    play(page, cli, slow=True)


def play(page: Path, cli, *, slow: bool) -> None:
    """Runs the blocks of a page in their order."""
    for library in NEEDS.get(page.name, ()):
        pytest.importorskip(library)
    scope, made = stage.names(Path.cwd()), set(Path.cwd().iterdir())
    for block in blocks(page):
        if not block.runs or (block.slow and not slow):
            continue
        if block.fresh:
            for path in set(Path.cwd().iterdir()) - made:
                path.unlink()
        if block.kind in CONFIG:
            Path("pyproject.toml").write_text(block.text, encoding="utf-8")
            assert settings(None, {}).targets, block.where
            continue
        if block.kind in PYTHON:
            code = compile(block.text, block.where, "exec")
            exec(code, scope)  # noqa: S102  our own documents
            if block.then:
                eval(block.then, scope)  # noqa: S307
            continue
        codes = [_run(words, cli, block.where) for words in commands(block)]
        assert codes, block.where
        assert [0] * (len(codes) - 1) + [block.exit] == codes, block.where


def _run(words: list[str], cli, where: str) -> int:
    into = ""
    if len(words) > 2 and words[-2] == ">":
        into, words = words[-1], words[:-2]
    if words[0] != "vgaudit":
        assert words[0] in {"pytest", "python"}, where
        start = [sys.executable, *(["-m", "pytest"] if words[0] == "pytest" else [])]
        return subprocess.run(
            [*start, *words[1:]], check=False, capture_output=True
        ).returncode
    outcome = cli(*words[1:])
    if into:
        Path(into).write_text(outcome.out, encoding="utf-8")
    if outcome.code not in (0, 1):
        raise AssertionError(f"{where}: {shlex.join(words)}\n{outcome.err}")
    return outcome.code
