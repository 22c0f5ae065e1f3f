"""The files that CI services read: the GitHub Action and the pre-commit hook."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import jsonschema
import pytest

from tests.reports.schemas import ACTION, schema

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).resolve().parents[2]
FOUND = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))


def test_the_action_is_one_by_its_schema() -> None:
    jsonschema.Draft7Validator(schema(ACTION)).validate(FOUND)


def test_no_input_reaches_a_script_but_by_the_environment() -> None:
    for step in FOUND["runs"]["steps"]:
        assert "${{" not in step["run"]


@pytest.mark.skipif(os.name != "posix", reason="bash")
@pytest.mark.parametrize("code", [0, 1, 3])
def test_the_action_hands_on_the_exit_code(tmp_path, code) -> None:
    fake = tmp_path / "vgaudit"
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > typed\nexit {code}\n')
    fake.chmod(0o755)
    step = FOUND["runs"]["steps"][-1]
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
        cwd=tmp_path,
        env={
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
            "ARGUMENTS": "check --jobs 2 $(touch owned)",
            "SARIF": "a b.sarif",
            "JSON": "out.json",
            "GITHUB_OUTPUT": str(tmp_path / "output"),
        },
        check=False,
    )
    typed = (tmp_path / "typed").read_text().splitlines()

    assert code == done.returncode
    assert f"exit-code={code}\n" == (tmp_path / "output").read_text()
    assert ["check", "--jobs", "2", "$(touch", "owned)"] == typed[:5]
    assert "sarif=a b.sarif" in typed
    assert not (tmp_path / "owned").exists()


def test_the_hook_runs_a_command_that_there_is(cli, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    program, *words = shlex.split(hook["entry"])
    outcome = cli(*words)

    assert ("vgaudit", "python", False) == (
        program,
        hook["language"],
        hook["pass_filenames"],
    )
    assert 2 == outcome.code
    assert re.search(r"^error: no targets: ", outcome.err)
