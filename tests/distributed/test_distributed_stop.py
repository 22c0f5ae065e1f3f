"""Ctrl-C and SIGTERM under ``torchrun``, which hands them on to every rank."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.distributed.networks import LIMIT, free_port
from tests.distributed.test_distributed_command import ROOT
from tests.training.courses import furnished

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="signals of POSIX"),
]

KILLED_AFTER = 30.0
"""Seconds after which torchrun kills ranks that have not ended."""

NETS = """
import time
import torch
from torch import nn

class Slow(nn.Sequential):
    def forward(self, x):
        if self.training:
            time.sleep(0.02)
        return super().forward(x)

def slow():
    torch.manual_seed(0)
    return Slow(nn.Linear(6, 8), nn.Sigmoid(), nn.Dropout(0.2), nn.Linear(8, 3))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model factory and labelled samples."""
    return furnished(tmp_path, NETS)


Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def launch(place: Path) -> Iterator[Launch]:
    """Starts the command with several ranks; its streams go to two files."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str, ranks: int = 2) -> subprocess.Popen[str]:
        launcher = (
            *("-m", "torch.distributed.run", "--nproc-per-node", str(ranks)),
            *("--master-port", str(free_port()), "-m", "vgaudit"),
        )
        with open(place / "out", "w") as out, open(place / "err", "w") as err:
            started.append(
                subprocess.Popen(
                    [sys.executable, *launcher, *words],
                    cwd=place,
                    env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                    stdout=out,
                    stderr=err,
                    text=True,
                    start_new_session=True,
                )
            )
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def until(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not ready():
        assert process.poll() is None, "it ended before that"
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def ended(process: subprocess.Popen[str], number: int) -> float:
    """Sends a signal to torchrun; returns the seconds until all ranks have ended."""
    begun = time.monotonic()
    process.send_signal(number)
    process.wait(timeout=LIMIT)
    return time.monotonic() - begun


def told(place: Path) -> str:
    """What was said, of us and of torchrun, once it is sure that we did not fail."""
    err = (place / "err").read_text()
    assert "internal error" not in err
    # torchrun shows the way of its own exception through its own files.
    ours = [line for line in err.splitlines() if f'File "{ROOT}/vgaudit' in line]
    assert not ours
    return err


def weights(path: Path) -> dict[str, Any]:
    return {name: t.tolist() for name, t in load_file(path).items()}


def words(epochs: int, out: str) -> list[str]:
    return [
        *("retrain", "nets.py:slow", "--with", "sdagd", "--data", "data.npz"),
        *("--batch-size", "16", "--epochs", str(epochs), "-o", out),
        *("--checkpoint-every", "0"),
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_saves_and_goes_on_bit_equal(
    place: Path, launch: Launch, number: int
) -> None:
    run = place / "out.safetensors.run"
    process = launch(*words(12, "out.safetensors"))
    until(process, (run / "checkpoint.pt").is_file)
    seconds = ended(process, number)
    err, text = told(place), (place / "out").read_text()

    assert seconds < KILLED_AFTER - 5, err
    assert 1 == err.count("finishing the step and saving; once more ends at once")
    assert "error: " not in err
    assert 1 == text.count("interrupted: sdagd was interrupted in epoch")
    assert "to continue: vgaudit retrain" in text
    assert not (place / "out.safetensors").exists()
    assert (run / "checkpoint.pt").is_file()
    assert process.returncode

    for name, more in (("out.safetensors", ["--resume"]), ("whole.safetensors", [])):
        again = launch(*words(12, name), *more)
        assert 0 == again.wait(timeout=LIMIT), told(place)
    resumed, whole = (weights(place / f"{n}.safetensors") for n in ("out", "whole"))
    assert resumed == whole
    assert not run.exists()


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_scan_gives_a_partial_report(
    place: Path, launch: Launch, parallel: str
) -> None:
    process = launch(
        *("scan", "nets.py:slow", "--input", "4x6", "--batches", "3000"),
        *("--format", "json", "--parallel", parallel),
    )
    until(process, lambda: "batch 9 of 3000" in (place / "err").read_text())
    seconds = ended(process, signal.SIGINT)
    err = told(place)

    assert seconds < KILLED_AFTER - 5, err
    report = json.loads((place / "out").read_text())
    assert (130, "inconclusive") == (report["exit_code"], report["status"])
    flow = report["audit"]["flow"]
    assert 2 <= flow["batches"] < 3000
    assert 4 * flow["batches"] == flow["samples"]
    assert f"with {flow['batches']} of 3000 batches measured" in report["warnings"][0]
    assert 1 == err.count("finishing the batch for a partial report")


def test_a_scan_for_the_eye_ends_at_once(place: Path, launch: Launch) -> None:
    process = launch(
        *("scan", "nets.py:slow", "--input", "4x6", "--batches", "3000"),
    )
    until(process, lambda: "batch 9 of 3000" in (place / "err").read_text())

    assert ended(process, signal.SIGINT) < KILLED_AFTER - 5
    assert "" == (place / "out").read_text()
    assert "interrupted" in told(place)


def test_a_signal_to_one_rank_ends_all_with_what_there_is(
    place: Path, launch: Launch
) -> None:
    """A scheduler may end one process; the first rank saves for all."""
    run = place / "out.safetensors.run"
    process = launch(*words(2000, "out.safetensors"))
    until(process, (run / "checkpoint.pt").is_file)
    os.kill(rank(process, 1), signal.SIGTERM)
    process.wait(timeout=LIMIT)
    told(place)

    text = (place / "out").read_text()
    assert "interrupted: sdagd was interrupted in epoch" in text
    assert "to continue: vgaudit retrain" in text


def rank(process: subprocess.Popen[str], number: int) -> int:
    """Returns the id of a rank's command, a child of torchrun."""
    for found in Path("/proc").glob("[0-9]*"):
        try:
            status = (found / "stat").read_text().rpartition(")")[2].split()
            variables = (found / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(status[1]) == process.pid and f"RANK={number}".encode() in variables:
            return int(found.name)
    raise AssertionError(f"there is no rank {number}")
