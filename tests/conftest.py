"""Fixtures of every part: a seed, the command line in process, and goldens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the cores; and with one thread a sum has one order everywhere.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no defect, and the same examples every time make a run repeatable.
settings.register_profile("vgaudit", deadline=None, derandomize=True)
settings.load_profile("vgaudit")

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write tests/golden anew"
    )


@dataclass(frozen=True)
class Outcome:
    """What one run of the command line left."""

    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs ``vgaudit ARGUMENTS`` in this process."""
    import vgaudit.cli

    monkeypatch.setattr(vgaudit.cli, "_stop_on_signals", lambda: None)

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            vgaudit.cli.main(list(arguments))
        captured = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the worker's tasks in this process: torch is loaded once for all tests."""
    from vgaudit import worker
    from vgaudit.cli import process
    from vgaudit.plain import to_json, to_plain

    def run(task, job, *, limits, watcher, ending=None, leash=None):
        record = json.loads(to_json(job))
        parent = worker.Parent(lambda _kind, phase: watcher.phase(phase))
        result = worker.TASKS[task](record, parent)
        return json.loads(to_json(to_plain(result)))

    monkeypatch.setattr(process, "run", run)


@pytest.fixture
def shell() -> Cli:
    """Runs ``python -m vgaudit ARGUMENTS`` in a process of its own."""

    def run(*arguments: str, env: dict[str, str] | None = None) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "vgaudit", *arguments],
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=ROOT,
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **(env or {})},
            timeout=300,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with ``tests/golden/NAME``; ``--update-golden`` writes it."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")

        assert path.read_text(encoding="utf-8") == text

    return check
