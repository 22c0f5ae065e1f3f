"""Completion in a shell: what it prints, and that a torn configuration stops none."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("words", "at", "expected"),
    [
        ("vgaudit ga", 1, {"gate"}),
        ("vgaudit check --de", 2, {"--debug", "--deep", "--device"}),
        ("vgaudit schema ", 2, {"check", "compare", "report", "retrain"}),
        ("vgaudit scan m.pt --optimizer ", 4, {"adam", "sgd"}),
    ],
)
def test_a_shell_completes_words(shell, words, at, expected) -> None:
    asked = {
        "COMP_WORDS": words,
        "COMP_CWORD": str(at),
        "_VGAUDIT_COMPLETE": "complete_bash",
        "VGAUDIT_CONFIG": "/nowhere.toml",
    }
    outcome = shell(env=asked)

    assert (0, expected) == (outcome.code, set(outcome.out.split()))


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_printed(shell, name) -> None:
    outcome = shell(env={"_VGAUDIT_COMPLETE": f"source_{name}"})

    assert 0 == outcome.code
    assert f"complete_{name}" in outcome.out
