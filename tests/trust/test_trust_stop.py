"""Ctrl-C and SIGTERM during a scan: what was measured is reported, as partial."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from vgaudit.cli import early
from vgaudit.cli.ending import Ending
from vgaudit.errors import CannotRun
from vgaudit.judge import judge
from vgaudit.reports.json import parse, schema
from vgaudit.rules.examples import chain

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = jsonschema.Draft202012Validator(json.loads(schema()))

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

NETS = """
import sys, time
from torch import nn

class Slow(nn.Sequential):
    def forward(self, x):
        time.sleep(0.05)
        return super().forward(x)

class Stuck(Slow):
    def forward(self, x):
        print("stuck", file=sys.stderr, flush=True)
        time.sleep(600)

def net(kind):
    return kind(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))

def slow():
    return net(Slow)

def stuck():
    return net(Stuck)

def late():
    print("building", file=sys.stderr, flush=True)
    time.sleep(1)
    return net(Slow)
"""


def start(folder: Path, factory: str, *more: str) -> subprocess.Popen[str]:
    (folder / "nets.py").write_text(NETS)
    spec = f"{folder}/nets.py:{factory}"
    words = ["scan", spec, "--input", "2x4", "--batches", "2000", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "vgaudit", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    assert any(words in line for line in process.stderr), "it ended before that"


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@posix
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_what_was_measured_is_reported_as_partial(tmp_path, number, code) -> None:
    path = tmp_path / "report.json"
    process = start(tmp_path, "slow", "--format", "json", "--report", f"json={path}")
    until(process, "batch 3 of 2000")
    process.send_signal(number)
    status, out, err = finished(process)

    assert (status, out) == (code, path.read_text())
    assert "finishing the batch for a partial report; once more ends at once" in err
    SCHEMA.validate(json.loads(out))
    report = parse(out)
    assert (report.status, report.exit_code) == ("inconclusive", code)
    assert report.audit is not None
    done = report.audit.flow.batches
    assert 2 <= done < 2000
    assert report.audit.flow.samples == 2 * done
    assert report.warnings[0].endswith(
        f"partial: the scan was interrupted with {done} of 2000 batches measured"
    )
    assert report.audit.flow.attenuation is not None


@posix
def test_before_the_first_batch_the_document_says_so(tmp_path) -> None:
    process = start(tmp_path, "late", "--format", "json")
    until(process, "building")
    process.send_signal(signal.SIGINT)
    status, out, err = finished(process)
    report = parse(out)

    assert (status, report.exit_code, report.status) == (130, 130, "error")
    assert report.audit is None
    assert "error: the scan was ended before its first batch\nhelp: " in err


@posix
def test_the_second_signal_ends_at_once(tmp_path) -> None:
    path = tmp_path / "report.json"
    process = start(tmp_path, "stuck", "--report", f"json={path}")
    until(process, "stuck")
    process.send_signal(signal.SIGINT)
    until(process, "once more ends at once")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    status, out, err = finished(process)

    assert (status, out) == (130, "")
    assert err.endswith("interrupted\n")
    assert not path.exists()


@posix
def test_without_a_report_to_write_the_first_signal_ends_at_once(tmp_path) -> None:
    process = start(tmp_path, "stuck")
    until(process, "stuck")
    process.send_signal(signal.SIGINT)
    status, out, err = finished(process)

    assert (status, out) == (130, "")
    assert err.endswith("interrupted\n")


def interrupted(status: int) -> Ending:
    end = Ending("finishing")
    end.status = status
    return end


def test_a_bad_verdict_stays_bad_and_a_good_one_is_none() -> None:
    sick = judge(chain((-9.6, -8.0, -6.1, -4.0, -2.0, 0.0)))
    healthy = judge(chain())

    for report, status in ((sick, "fail"), (healthy, "inconclusive")):
        partial = early.marked(report, interrupted(130), asked=8)
        assert (partial.status, partial.exit_code) == (status, 130)
        assert "partial: the scan was interrupted with " in partial.warnings[0]
        assert partial.findings == report.findings
        for calm in (None, interrupted(0)):
            assert early.marked(report, calm, asked=8) == report


def test_an_error_keeps_its_words_and_takes_the_status_of_the_signal() -> None:
    error = CannotRun("layer x failed", hint="look at x")

    assert early.told(error, None) is error
    assert early.told(error, interrupted(0)) is error
    for code in (130, 143):
        told = early.told(error, interrupted(code))
        assert (told.message, told.hint) == (error.message, error.hint)
        assert told.exit_code == code
