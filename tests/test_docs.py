"""The documents say what is true: commands, options, rules, exit codes, output."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from vgaudit import errors
from vgaudit.cli import INTERRUPTED, PIPE_CLOSED, TERMINATED, app
from vgaudit.cli.boundary import INTERNAL
from vgaudit.explain import manual
from vgaudit.judge import EXIT_FAIL, EXIT_INCONCLUSIVE
from vgaudit.reports import treatments
from vgaudit.rules import RULES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FIRST = (
    "python -m pip install . && vgaudit scan fixtures/deep_sigmoid_mlp.safetensors "
    "--arch fixtures/models.py:deep_sigmoid_mlp --exit-zero"
)
SECOND = 'python -m pip install -e ".[dev]" && python -m pytest'


def test_rules_page_is_fresh() -> None:
    """Else: ``python -m vgaudit.explain > docs/rules.md``."""
    assert manual() == (ROOT / "docs/rules.md").read_text(encoding="utf-8")


def test_the_page_of_treatments_is_made_from_the_treatments() -> None:
    """Else: ``python -m vgaudit.reports.treatments > docs/treatments.md``."""
    written = (ROOT / "docs/treatments.md").read_text(encoding="utf-8")
    assert treatments.manual() == written


@pytest.mark.parametrize("command", [FIRST, SECOND])
def test_both_commands_run_in_ci_word_for_word(command: str) -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")

    assert command in [line.strip() for line in script.splitlines()]
    assert command in README.splitlines()


@pytest.mark.parametrize("command", app.COMMANDS, ids=lambda command: command.__name__)
def test_a_command_is_documented(command) -> None:
    assert f"`vgaudit {command.__name__}" in README
    assert inspect.getdoc(command)


def test_every_option_of_scan_is_documented() -> None:
    source = (ROOT / "vgaudit/cli/scan.py").read_text(encoding="utf-8")
    (function,) = [
        node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)
    ]
    names = {arg.arg for arg in function.args.args} - {"ctx", "model"}
    flags = {f"--{name.replace('_', '-')}" for name in names}
    written = set(re.findall(r"--[a-z0-9-]+", README))

    assert set() == flags - written


def test_every_exit_code_is_documented() -> None:
    codes = {
        0,
        EXIT_FAIL,
        EXIT_INCONCLUSIVE,
        INTERNAL,
        INTERRUPTED,
        PIPE_CLOSED,
        TERMINATED,
        *(kind.exit_code for kind in errors.KINDS.values()),
    }
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.M)}

    assert codes == table


def test_every_rule_is_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    for rule in RULES:
        assert f"{rule.code} {rule.name}" in changelog


def test_links_to_files_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_sample_in_the_readme_is_the_real_output(shell) -> None:
    shown = re.search(r"^\$ vgaudit scan (.*)\n((?:.*\n)*?)```", README, re.M)
    assert shown is not None
    outcome = shell("scan", *shown[1].split(), "--no-progress")

    assert outcome.code == 1
    assert _shape(shown[2]) == _shape(outcome.out)


def _shape(text: str) -> str:
    """Returns a text without its figures: they differ between versions of torch."""
    return re.sub("[▁▂▃▄▅▆▇█░]+", "█", re.sub(r"[\d.,]+", "0", re.sub(" +", " ", text)))
