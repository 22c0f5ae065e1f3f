"""What starts without torch, and how soon."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from vgaudit.judge import judge
from vgaudit.reports.json import render
from vgaudit.rules.examples import chain

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "torchvision", "numpy", "scipy", "transformers", "timm")
CPU_SECONDS = 0.8  # 0.2 to 0.35 on an idle machine; torch alone would be 1.5

SHOW_MODULES = """
import json, sys
sys.argv = ["vgaudit", *json.loads(sys.argv[1])]
from vgaudit.cli import main
try:
    main()
finally:
    loaded = sorted({name.partition(".")[0] for name in sys.modules})
    sys.stderr.write(json.dumps(loaded))
"""


def modules_after(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", SHOW_MODULES, json.dumps(arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


LIGHT = [
    ("--help",),
    ("scan", "--help"),
    ("rules",),
    ("explain", "VG101"),
    ("--version",),
]


@pytest.mark.parametrize("arguments", [*LIGHT, ("schema",)], ids=" ".join)
def test_the_manual_starts_without_torch(arguments) -> None:
    assert not set(HEAVY) & modules_after(*arguments)


def test_a_report_renders_without_torch(tmp_path) -> None:
    path = tmp_path / "report.json"
    path.write_text(render(judge(chain())))

    assert not set(HEAVY) & modules_after("report", str(path))


def test_judging_and_reporting_never_import_torch() -> None:
    code = (
        "import sys, vgaudit, vgaudit.judge, vgaudit.explain, vgaudit.reports;"
        "import vgaudit.reports.json, vgaudit.cli.app;"
        f"sys.exit(bool(set({HEAVY!r}) & set(sys.modules)))"
    )

    assert 0 == subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_the_manual_starts_soon(arguments) -> None:
    """CPU seconds of the child, the best of five: the machine may be busy."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "vgaudit", *arguments],
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) <= CPU_SECONDS
