"""One boundary for errors: whatever goes wrong in whatever command, two lines say it.

The reason, the way out, the exit code; no traceback; a valid document where JSON was
asked for; and nothing written.
"""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import torch
from torch import nn

from vgaudit.cli.app import COMMANDS
from vgaudit.reports.json import schema

SCHEMA = jsonschema.Draft202012Validator(json.loads(schema()))

NETS = """
from torch import nn

def net():
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))

def nothing():
    return 3

def needy(width):
    return nn.Linear(width, 2)

def broken():
    raise RuntimeError("no such day")

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(self.a(x)).detach()

def odd():
    return Odd()

def frozen():
    return net().requires_grad_(False)
"""

DATA = "--data=data.npz"

# What is typed, and the exit code.
WRONG: dict[str, list[tuple[str, int]]] = {
    "scan": [
        ("scan", 2),
        ("scan nowhere.pt", 3),
        ("scan .", 3),
        ("scan empty.pt", 3),
        ("scan text.pt", 3),
        ("scan half.pt", 3),
        ("scan state.pt", 3),
        ("scan state.pt --arch nets.py:nowhere", 3),
        ("scan state.pt --arch nets.py:net --key ema", 2),
        ("scan nets.py:nothing", 3),
        ("scan nets.py:needy", 3),
        ("scan nets.py:broken", 3),
        ("scan nets.py:odd --input 2x4", 3),
        ("scan nets.py:frozen --input 2x4", 3),
        ("scan nets.py:net --input 2x5", 3),
        ("scan nets.py:net --input 2xfour", 2),
        ("scan nets.py:net --data nowhere.npz", 3),
        ("scan nets.py:net --data text.csv", 3),
        ("scan nets.py:net --data=data.npz --loss huber", 2),
        ("scan nets.py:net --data=far.npz --loss cross-entropy", 3),
        ("scan nets.py:net --data=nan.npz", 4),
        ("scan nets.py:net --device tpu9", 2),
        ("scan nets.py:net --dtype int8 --input 2x4", 2),
        ("scan nets.py:net --select VG999", 2),
        ("scan nets.py:net --set VG101.sgd_error=deep", 2),
        ("scan nets.py:net --report json=none/report.json", 3),
        ("scan nets.py:net --report json=taken.json", 3),
        ("scan state.pt --report json=state.pt --force", 3),
        ("scan nets.py:net --config nowhere.toml", 2),
        ("scan nets.py:net --config trusting.toml", 2),
        ("scan nets.py:net --deep --static", 2),
        ("scan nets.py:net --require-sandbox --no-sandbox", 2),
        ("scan state.pt --sha256 abc", 2),
        ("scan state.pt --trust-pickle=sha256:12", 2),
        ("scan resnet18", 3),
        ("scan torchvision:resnet19", 3),
    ],
    "inspect": [
        ("inspect", 2),
        ("inspect nowhere.pt", 3),
        ("inspect half.pt", 3),
        ("inspect nets.py:net --graph --input 2x5", 3),
        ("inspect nets.py:broken --graph", 3),
    ],
    "convert": [
        ("convert nets.py:net", 2),
        ("convert nets.py:net --to gold", 2),
        ("convert nowhere.pt --to ar", 3),
        ("convert nets.py:net --to ar -o state.txt", 2),
        ("convert nets.py:net --to ar -o none/out.safetensors", 3),
        ("convert nets.py:net --to ar -o taken.safetensors", 3),
        ("convert nets.py:broken --to ar", 3),
        ("convert nets.py:net --to ar --layers no.such.layer", 3),
    ],
    "retrain": [
        ("retrain nets.py:net --with adam", 2),
        ("retrain nets.py:net --with gold --data=data.npz", 2),
        ("retrain nowhere.pt --with adam --data=data.npz", 3),
        ("retrain nets.py:net --with adam --data=nowhere.npz", 3),
        ("retrain nets.py:net --with adam --data=data.npz -o out.bin", 2),
        ("retrain nets.py:net --with adam --data=data.npz --resume", 2),
        ("retrain nets.py:net --with adam --data=data.npz --setting gamma=1", 2),
    ],
    "compare": [
        ("compare taken.json", 2),
        ("compare taken.json nowhere.json", 3),
        ("compare text.pt taken.json", 3),
    ],
    "check": [
        ("check", 2),
        ("check --config nowhere.toml", 2),
        ("check --config trusting.toml", 2),
        ("check --config broken.toml", 2),
        ("check --config misspelt.toml", 2),
        ("check nobody --config targets.toml", 2),
    ],
    "gate": [
        ("gate", 2),
        ("gate nowhere.json", 3),
        ("gate taken.json", 3),
        ("gate taken.json --baseline nowhere.json", 2),
        ("gate taken.json --preset lax", 2),
    ],
    "report": [
        ("report", 2),
        ("report nowhere.json", 3),
        ("report state.pt", 3),
        ("report taken.json --to jsn", 2),
    ],
    "explain": [("explain", 2), ("explain VG999", 2)],
    "rules": [("rules --all", 2)],
    "schema": [("schema 2", 2)],
    "doctor": [("doctor --format yaml", 2)],
    "demo": [("demo --keep taken.json", 3)],
    "fix": [("fix", 2), ("fix nowhere.pt --data=data.npz", 3)],
    "baseline": [
        ("baseline write", 2),
        ("baseline write nowhere.json -o new.json", 3),
        ("baseline show nowhere.json", 2),
        ("baseline show taken.json", 2),
        ("baseline prune taken.json -o nowhere.json", 2),
    ],
}
KNOWN = {command.__name__ for command in COMMANDS} | {"baseline"}
LINES = [line for name, lines in WRONG.items() if name in KNOWN for line in lines]
SPEAK_JSON = ("scan", "convert", "retrain", "compare", "check", "gate", "inspect")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a few honest files and many that are not."""
    import numpy as np

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    (tmp_path / "nets.py").write_text(NETS)
    torch.save(net.state_dict(), "state.pt")
    whole = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_text("print('hello')\n")
    (tmp_path / "text.csv").write_text("a,b\nx,y\n")
    (tmp_path / "taken.json").write_text("{}")
    (tmp_path / "taken.safetensors").touch()
    (tmp_path / "broken.toml").write_text("[[targets\n")
    (tmp_path / "trusting.toml").write_text("trust-pickle = true\n")
    (tmp_path / "misspelt.toml").write_text("selct = ['VG1']\n")
    targets = "[[targets]]\nname = 'a'\nmodel = 'state.pt'\n"
    (tmp_path / "targets.toml").write_text(targets)
    x, y = np.zeros((8, 4), "f4"), np.arange(8) % 2
    np.savez("data.npz", x=x, y=y)
    np.savez("far.npz", x=x, y=y + 7)
    np.savez("nan.npz", x=x + np.nan, y=y)
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("typed", "code"), LINES, ids=[line for line, _ in LINES])
def test_what_is_wrong_is_said_in_two_lines(cli, place, typed, code) -> None:
    before = files(place)
    outcome = cli(*typed.split())
    *phases, reason, way_out = outcome.err.splitlines()

    assert (code, "") == (outcome.code, outcome.out), outcome.err
    assert reason.startswith("error: ")
    assert way_out.startswith("help: ")
    assert len(reason) > len("error: x")
    assert len(way_out) > len("help: x")
    assert all(line.startswith("vgaudit: ") for line in phases), phases
    assert "Traceback" not in outcome.err
    assert "weights_only" not in outcome.err
    assert files(place) == before


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("typed", "code"),
    [
        pytest.param(typed, code, id=typed)
        for command in SPEAK_JSON
        for typed, code in WRONG[command]
        if "--format" not in typed
    ],
)
def test_it_is_a_document_where_json_was_asked_for(cli, place, typed, code) -> None:
    before = files(place)
    outcome = cli(*typed.split(), "--format", "json")
    document = json.loads(outcome.out)

    assert code == outcome.code, outcome.err
    SCHEMA.validate(document)
    assert document["exit_code"] == code
    assert document["status"] == ("inconclusive" if code == 4 else "error")
    (error,) = document["errors"]
    assert error["message"]
    assert error["hint"]
    assert error["exit_code"] == code
    assert files(place) == before


def test_an_archive_that_is_none_is_a_document_too(cli, place) -> None:
    for words in (("--to", "json"), ("--to=json",)):
        outcome = cli("report", "nowhere.json", *words)

        assert outcome.code == 3
        SCHEMA.validate(json.loads(outcome.out))


def test_every_command_is_tried() -> None:
    assert set(WRONG) >= KNOWN
