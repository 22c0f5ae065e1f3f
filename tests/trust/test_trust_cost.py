"""What hostile files cost: seconds and memory beyond those of an import."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="units of ru_maxrss"),
]

MOST_SECONDS = 5.0
MOST_KILOBYTES = 2**20

MEASURE = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[1])
import torch
import vgaudit
from vgaudit.errors import VgauditError
from vgaudit.job import DataOptions, LoadOptions
from vgaudit.loading import inspect, load

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def open_data(path):
    from vgaudit.data import open_batches
    net = torch.nn.Sequential(torch.nn.Linear(4, 2))
    list(open_batches(net, DataOptions(data=path), None, mode="train"))

path = sys.argv[2]
acts = {
    "model": [lambda: load(path, LoadOptions()), lambda: inspect(path, LoadOptions())],
    "data": [lambda: open_data(path)],
}[sys.argv[3]]
import vgaudit.data
load_before, base = time.perf_counter(), peak()
said = []
for act in acts:
    try:
        act()
        said.append("")
    except VgauditError as error:
        said.append(error.message)
print(json.dumps([said, time.perf_counter() - load_before, peak() - base]))
"""


def zip_of(path: Path, name: str, head: bytes, zeros: int) -> None:
    """Writes an archive with one member: a head, then zeros that shrink to nothing."""
    block = bytes(2**24)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(name, "w", force_zip64=True) as member,
    ):
        member.write(head)
        for _ in range(zeros // len(block)):
            member.write(block)


def zip_bomb(folder: Path) -> Path:
    path = folder / "bomb.pt"
    zip_of(path, "archive/data/0", b"", 2**31)
    storage = b"\x80\x02}."
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data.pkl", storage)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
    return path


def npy_header(shape: str) -> bytes:
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def npz_bomb(folder: Path) -> Path:
    path = folder / "bomb.npz"
    zip_of(path, "x.npy", npy_header(f"({2**26}, 4)"), 2**31)
    return path


def huge_npy(folder: Path) -> Path:
    path = folder / "huge.npy"
    path.write_bytes(npy_header(f"({2**43 // 2 + 2**41}, 1)") + bytes(64))
    return path


def inside_zip(path: Path, program: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
    return path


def deep_pickle(folder: Path) -> Path:
    depth = 200_000
    program = b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."
    return inside_zip(folder / "deep.pt", program)


def billion_laughs(folder: Path) -> Path:
    value: list[object] = ["lol"] * 10
    for _ in range(40):
        value = [value] * 10
    return inside_zip(folder / "laughs.pt", pickle.dumps(value, 2))


def terabyte_header(folder: Path) -> Path:
    path = folder / "header.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + b'{"x": 1}')
    return path


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (zip_bomb, "model"),
        (deep_pickle, "model"),
        (billion_laughs, "model"),
        (terabyte_header, "model"),
        (huge_npy, "data"),
        (npz_bomb, "data"),
    ],
)
def test_a_hostile_file_costs_little(
    make: Callable[[Path], Path], kind: str, tmp_path: Path
) -> None:
    path = make(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(ROOT), str(path), kind],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, seconds, kilobytes = json.loads(done.stdout)

    assert said[0], "it was read as if it were honest"
    assert seconds < MOST_SECONDS
    assert kilobytes < MOST_KILOBYTES
