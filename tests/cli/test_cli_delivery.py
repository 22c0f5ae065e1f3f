"""Reports that cannot be written everywhere: shown, and the rest is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.reports_html.test_reports_html_change import SICK, WELL
from tests.reports_html.test_reports_html_change import conversion as converted
from tests.reports_html.test_reports_html_change import training as trained
from vgaudit.cli import pictures, process, training
from vgaudit.errors import CannotRun, CannotWrite
from vgaudit.plain import to_plain
from vgaudit.reports.json import parse
from vgaudit.reports.json import render as to_json

WEIGHTS = ("out.safetensors", "out.recipe.json")
FULL = "full"


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch):
    """Lets the worker answer with a value, or raise."""

    def install(answer):
        def run(task, job, *, limits, watcher, ending=None, leash=None):
            if isinstance(answer, Exception):
                raise answer
            return to_plain(answer)

        monkeypatch.setattr(process, "run", run)
        monkeypatch.setattr(training, "run", run)

    return install


@pytest.fixture(autouse=True)
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has no space left for files whose names begin with FULL."""
    replaced = os.replace

    def full(source, target):
        if Path(target).name.startswith(FULL):
            raise OSError(28, "No space left on device")
        replaced(source, target)

    monkeypatch.setattr(os, "replace", full)


@pytest.fixture
def places(tmp_path: Path) -> tuple[list[str], Path, Path]:
    """Options for three reports, of which the one in the middle is refused."""
    first, last = tmp_path / "a.html", tmp_path / "c.json"
    bad = tmp_path / FULL
    words = []
    for text in (f"html={first}", f"json={bad}", f"json={last}"):
        words += ["--report", text]
    return words, first, last


def reports(folder: Path) -> list[str]:
    for name, report in (("old", SICK), ("new", WELL)):
        (folder / f"{name}.json").write_text(to_json(report), encoding="utf-8")
    return [str(folder / "old.json"), str(folder / "new.json")]


@pytest.mark.parametrize(
    ("command", "answer", "shown", "names"),
    [
        (["scan", "m"], SICK.audit, "FAIL", ()),
        (
            ["retrain", "m", "--with", "adam", "--data", "d"],
            replace(trained(), written=WEIGHTS),
            f"written: {', '.join(WEIGHTS)}",
            WEIGHTS,
        ),
        (
            ["convert", "m", "--to", "ar"],
            replace(converted(), written=WEIGHTS),
            f"written: {', '.join(WEIGHTS)}",
            WEIGHTS,
        ),
        (["compare"], None, "better: 1 finding gone", ()),
        (["gate"], None, "FAIL", ()),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_report_is_shown_whatever_cannot_be_written(
    cli, worker, places, tmp_path, command, answer, shown, names
) -> None:
    worker(answer)
    words, first, last = places
    given = reports(tmp_path) if command in (["compare"], ["gate"]) else []
    done = cli(*command, *(given[:1] if command == ["gate"] else given), *words)

    assert done.code == 3
    assert shown.lower() in done.out.lower()
    assert f"error: {tmp_path / FULL} cannot be written: No space left" in done.err
    listed = ", ".join([*names, str(first), str(last)])
    assert done.err.endswith(f"written all the same: {listed}\n")
    assert "<html" in first.read_text(encoding="utf-8")
    assert json.loads(last.read_text(encoding="utf-8"))


def test_without_a_text_report_the_error_names_what_was_written(
    cli, worker, places
) -> None:
    worker(replace(trained(), written=WEIGHTS))
    asked = ["retrain", "m", "--with", "adam", "--data", "d", "--quiet"]
    done = cli(*asked, *places[0])

    assert (done.code, done.out) == (3, "")
    assert f"written all the same: {', '.join(WEIGHTS)}, " in done.err


def test_standard_output_stays_one_document(cli, worker, places) -> None:
    worker(SICK.audit)
    done = cli("scan", "m", "--format", "json", *places[0])

    assert done.code == 3
    assert parse(done.out).audit == SICK.audit


def test_every_file_that_fails_is_named(cli, worker, tmp_path) -> None:
    worker(SICK.audit)
    bad = [tmp_path / f"{FULL}{i}" for i in range(2)]
    words = [word for path in bad for word in ("--report", f"json={path}")]
    done = cli("scan", "m", *words)

    assert done.code == 3
    for path in bad:
        assert f"{path} cannot be written" in done.err
    assert "written all the same" not in done.err


def test_a_scan_that_fails_stays_what_is_told(cli, worker, places) -> None:
    worker(CannotRun("layer x failed", hint="look at x"))
    words, _, last = places
    done = cli("scan", "m", *words)

    assert done.code == 3
    assert done.err.startswith("error: layer x failed\nhelp: look at x; ")
    assert "cannot be written: No space left on device" in done.err
    assert parse(last.read_text(encoding="utf-8")).status == "error"


def test_pictures_that_fail_cost_no_report(cli, worker, tmp_path, monkeypatch) -> None:
    def full(*_given, **_named):
        raise CannotWrite("depth.png cannot be written: No space left on device")

    monkeypatch.setattr(pictures, "save", full)
    worker(WELL.audit)
    place = tmp_path / "scan.json"
    done = cli("scan", "m", "--report", f"json={place}")

    assert done.code == 3
    assert "pass" in done.out.lower()
    assert "error: depth.png cannot be written" in done.err
    assert parse(place.read_text(encoding="utf-8")).status == "pass"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
@pytest.mark.parametrize("typed", ["gate", "rules", "--help"])
def test_a_full_standard_output_is_no_bug(typed: str, tmp_path: Path) -> None:
    again = tmp_path / "again.json"
    words = [typed]
    if typed == "gate":
        words += [reports(tmp_path)[0], "--report", f"json={again}"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vgaudit", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )

    said = "error: standard output cannot be written: No space left on device\n"
    assert (3, said) == (done.returncode, done.stderr[: len(said)])
    assert "internal" not in done.stderr
    if typed == "gate":
        assert done.stderr.endswith(f"written all the same: {again}\n")
        assert parse(again.read_text(encoding="utf-8"))
