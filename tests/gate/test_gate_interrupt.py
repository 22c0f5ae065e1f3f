"""A check that is interrupted, with real workers: status, files, and no orphans."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

MODELS = '''
"""A model that tells its process and never ends, and one that is done at once."""

import os
import subprocess
import sys
import time

from torch import nn


class Slow(nn.Linear):
    """Starts a program of its own, and waits for longer than any test."""

    def forward(self, x):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        print(f"pids {os.getpid()} {child.pid}", flush=True)
        time.sleep(300)
        return super().forward(x)


def slow():
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), Slow(8, 2))


def quick():
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
'''
TARGET = '[[targets]]\nname = "{0}"\nmodel = "models.py:{0}"\ninput = ["4x8"]\n'


def alive(pid: int) -> bool:
    """Tells whether a process runs; one that is dead and not yet reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    except OSError:
        os.kill(pid, 0)
        return True
    return state != "Z"


def gone(pids: list[int], seconds: float = 10.0) -> list[int]:
    """Returns the processes that still run after some seconds."""
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [pid for pid in pids if alive(pid)]


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_an_interrupt_ends_every_worker_and_writes_nothing(
    tmp_path, number, code, word
) -> None:
    (tmp_path / "models.py").write_text(MODELS)
    config = "jobs = 2\n" + TARGET.format("slow") + TARGET.format("quick")
    (tmp_path / "vgaudit.toml").write_text(config)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    typed = [sys.executable, "-m", "vgaudit", "check", "--allow-code", "--no-sandbox"]
    typed += ["--format", "json", "--report", "json=report.json"]
    running = subprocess.Popen(
        typed,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)},
    )
    assert running.stderr is not None
    said, pids = "", []
    for line in running.stderr:
        said += line
        if found := re.search(r"pids (\d+) (\d+)", line):
            pids = [int(x) for x in found.groups()]
        if pids and "quick: PASS" in said:
            break
    running.send_signal(number)
    out, rest = running.communicate(timeout=30)

    assert (code, "") == (running.returncode, out), said + rest
    assert word in rest
    assert "Traceback" not in rest
    assert not (tmp_path / "report.json").exists()
    assert [] == gone(pids)
    assert [] == list(scratch.glob("vgaudit-*"))


def test_a_check_that_ends_by_itself_writes_its_report(tmp_path) -> None:
    """The counterpart: the same target without an interrupt."""
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "vgaudit.toml").write_text(TARGET.format("quick"))
    typed = [sys.executable, "-m", "vgaudit", "check", "--allow-code", "--quiet"]
    done = subprocess.run(
        [*typed, "--report", "json=report.json"],
        cwd=tmp_path,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )

    assert 0 == done.returncode, done.stderr
    record = json.loads((tmp_path / "report.json").read_text())
    assert ["quick"] == [target["name"] for target in record["targets"]]
