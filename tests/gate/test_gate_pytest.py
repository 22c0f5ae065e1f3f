"""The pytest plugin, run by pytest in folders of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gate.repository import MODELS

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import sys
import pytest

LOADED = "torch" in sys.modules

def test_the_plugin_loads_no_torch():
    assert not LOADED

def test_sick(assert_gradient_healthy):
    from models import classifier
    assert_gradient_healthy(classifier(depth=12))

@pytest.mark.vgaudit(ignore="VG1")
def test_ignored(assert_gradient_healthy):
    from models import classifier
    assert_gradient_healthy(classifier(depth=12))

def test_too_little(assert_gradient_healthy):
    from models import single
    assert_gradient_healthy(single())

@pytest.mark.vgaudit(optimiser="adam")
def test_misspelled(assert_gradient_healthy):
    pass
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs pytest with the plugin in a folder."""
    command = (
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rA",
        "-p",
        "vgaudit.pytest_plugin",
    )
    return subprocess.run(
        [*command, "-p", "no:cacheprovider", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
            # Where vgaudit is installed, its entry point would load it once more.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        timeout=120,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models.py").write_text(MODELS)
    return tmp_path


def test_the_fixture_judges_by_the_marker(folder) -> None:
    (folder / "test_models.py").write_text(TESTS)
    done = run(folder)

    assert 1 == done.returncode
    for line in (
        "PASSED test_models.py::test_the_plugin_loads_no_torch",
        "FAILED test_models.py::test_sick",
        "PASSED test_models.py::test_ignored",
        "FAILED test_models.py::test_too_little",
        "ERROR test_models.py::test_misspelled",
    ):
        assert line in done.stdout
    assert "VG101 vanishing-gradient" in done.stdout
    assert "takes optimizer, select, ignore, fail_on, thresholds" in done.stdout


def test_a_scan_is_a_test(folder) -> None:
    done = run(folder, "--vgaudit=models.py:classifier")

    assert 1 == done.returncode
    assert "1 failed" in done.stdout
    assert "gradient lost" in done.stdout
    assert "Traceback" not in done.stdout


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, json, vgaudit.pytest_plugin;"
        "print(json.dumps(sorted(m for m in sys.modules if m.startswith('vgaudit'))));"
        "sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )

    assert 0 == done.returncode
    assert ["vgaudit", "vgaudit.pytest_plugin"] == json.loads(done.stdout)
