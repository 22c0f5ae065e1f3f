"""The worker in this process, and reports to decide on."""

from __future__ import annotations

import json

import pytest

from vgaudit.cli import process


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the worker's tasks in this process: torch is loaded once for all tests."""
    from vgaudit import worker
    from vgaudit.plain import to_json, to_plain

    def run(task, job, *, limits, watcher, ending=None):
        record = json.loads(to_json(job))
        parent = worker.Parent(lambda _kind, phase: watcher.phase(phase))
        result = worker.TASKS[task](record, parent)
        return json.loads(to_json(to_plain(result)))

    monkeypatch.setattr(process, "run", run)
