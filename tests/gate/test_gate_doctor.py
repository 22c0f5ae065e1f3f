"""``vgaudit doctor``: what it looks at, and what makes it fail."""

from __future__ import annotations

import json

import pytest

from vgaudit.cli import examination
from vgaudit.errors import CannotRun

FOUND = {
    "torch": "2.10.1+cpu",
    "threads": 2,
    "devices": ["cpu", "cuda:0 \x1b[31mGPU"],
    "gradient": True,
    "torchvision": "works",
    "safetensors": "works",
}


@pytest.fixture
def worker(monkeypatch):
    """Lets the worker answer, or fail."""

    def install(answer) -> None:
        def run(*_: object, **__: object):
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(examination, "run", run)

    return install


@pytest.mark.parametrize(
    ("change", "code", "state"),
    [
        ({}, 0, "ok    torch "),
        ({"torch": "2.9.1"}, 3, "bad   torch "),
        ({"torch": "2.10.0a0+git"}, 0, "ok    torch "),
        ({"gradient": False}, 3, "bad   gradient "),
        ({"torchvision": "cannot be imported: x"}, 0, "note  torchvision "),
    ],
)
def test_what_an_audit_needs_decides(cli, worker, change, code, state) -> None:
    worker({**FOUND, **change})
    outcome = cli("doctor", "--no-progress")

    assert code == outcome.code
    assert state in outcome.out
    assert all(ch.isprintable() or ch == "\n" for ch in outcome.out)


def test_a_worker_that_cannot_start_is_said(cli, worker) -> None:
    worker(CannotRun("the process crashed"))
    outcome = cli("doctor", "--format", "json", "--no-progress")
    facts = {fact["name"]: fact for fact in json.loads(outcome.out)}

    assert 3 == outcome.code
    assert "bad" == facts["torch"]["state"]
    assert "the process crashed" in facts["torch"]["text"]
    assert {"python", "sandbox", "temporary files", "cores"} <= set(facts)


def test_a_folder_that_cannot_be_written_to_is_bad(
    cli, worker, monkeypatch, tmp_path
) -> None:
    worker(FOUND)
    missing = tmp_path / "file"
    missing.write_text("")
    monkeypatch.setattr(examination.tempfile, "gettempdir", lambda: str(missing))
    outcome = cli("doctor", "--no-progress")

    assert 3 == outcome.code
    assert "bad   temporary files" in outcome.out


def test_the_worker_examines_torch() -> None:
    from vgaudit import worker as real

    phases: list[str] = []
    found = real.TASKS["doctor"]({}, phases.append)

    assert found["gradient"]
    assert "cpu" == found["devices"][0]
    assert {"torch", "threads", "torchvision", "timm"} <= set(found)
    assert phases
