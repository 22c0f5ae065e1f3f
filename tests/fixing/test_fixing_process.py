"""``vgaudit fix`` in processes of its own: interrupted, resumed, finished, baked."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT, Cli
from tests.fixing.models import task
from tests.fixing.test_fixing_command import ADAM, ROTATED, job
from tests.fixing.test_fixing_repair import only
from vgaudit.repair import job as repair
from vgaudit.training.retrain import Listener

NET = """
import torch
from torch import nn

def sick():
    torch.manual_seed(0)
    layers = []
    for i in range(8):
        layers += [nn.Linear(32 if i else 16, 32), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(32, 4))
"""
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fix-process")
    (folder / "net.py").write_text(NET)
    x, y = task(900)
    torch.save({"x": x, "y": y}, folder / "data.pt")
    return folder


def words(place: Path, out: str, *more: str) -> list[str]:
    return [
        "fix",
        f"{place / 'net.py'}:sick",
        "--allow-code",
        "--data",
        str(place / "data.pt"),
        "--trials",
        "3",
        "--most-steps",
        "80",
        "-o",
        str(place / out),
        *more,
    ]


def eventually(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def finished_trainings(folder: Path) -> int:
    path = folder / "fix.json"
    return len(json.loads(path.read_bytes())["attempts"]) if path.is_file() else 0


@posix
@pytest.mark.slow
def test_interrupted_and_resumed_it_ends_as_if_never_interrupted(
    place: Path, shell: Cli
) -> None:
    folder = place / "cut.safetensors.run"
    process = subprocess.Popen(
        [sys.executable, "-m", "vgaudit", *words(place, "cut.safetensors")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    eventually(lambda: finished_trainings(folder) >= 4)
    process.send_signal(signal.SIGINT)
    text, err = process.communicate(timeout=240)

    assert process.returncode == 130, err
    assert "interrupted in training" in text
    assert "to continue: vgaudit fix" in text
    assert not (place / "cut.safetensors").exists()
    kept = finished_trainings(folder)
    assert 4 <= kept < 18

    again = shell(*words(place, "cut.safetensors", "--resume"))
    whole = shell(*words(place, "whole.safetensors"))

    assert again.code == whole.code == 0, again.err + whole.err
    assert "cost: 18 trainings of 18" in again.out
    assert not folder.exists() or not (folder / "fix.json").exists()
    one, other = (load_file(place / f"{name}.safetensors") for name in ("cut", "whole"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_what_is_written_is_scanned_and_rotated_layers_are_baked(
    tmp_path: Path, shell: Cli
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        only(patch, ADAM, ROTATED)
        done = repair.run(job(tmp_path, "sick"), Listener())
    assert done.status == "repaired"
    arch = ("--arch", f"{tmp_path / 'net.py'}:sick", "--allow-code")
    data = ("--data", str(tmp_path / "data.pt"))
    out, plain = (str(tmp_path / f"{n}.safetensors") for n in ("out", "plain"))

    scanned = shell("scan", out, *arch, *data, "--format", "json", "--exit-zero")
    baked = shell("convert", out, *arch, *data, "--to", "plain", "-o", plain)

    assert scanned.code == 0, scanned.err
    assert baked.code == 0, baked.err
    after = json.loads(scanned.out)["audit"]["flow"]["attenuation"]["value"]
    assert done.before is not None
    assert done.before.flow.attenuation is not None
    assert after > done.before.flow.attenuation.value + 1
    # Baked, the weights fit the architecture as it was written, without vgaudit.
    assert not any("ar_" in name for name in load_file(plain))
