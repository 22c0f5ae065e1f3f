"""What the findings of a training propose opens the model as it was opened."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch

from tests.training.courses import furnished
from vgaudit.job import LoadOptions
from vgaudit.loading import load

NETS = """
import torch
from torch import nn


def steep():
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.Sigmoid()]
    for _ in range(6):
        layers += [nn.Linear(8, 8), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(8, 3))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with samples, a model factory, and its weights without their model."""
    place = furnished(tmp_path, NETS)
    model = load(f"{place}/nets.py:steep", LoadOptions()).module
    torch.save(model.state_dict(), place / "steep.pt")
    return place


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (["retrain", "--with", "adam", "--epochs", "1"], "retraining"),
        (["convert", "--to", "adact"], "conversion"),
        (["fix", "--no-trial", "--valid-split", "0.4"], "fixing"),
    ],
)
def test_a_proposed_command_has_the_architecture(
    cli, here, place, command, kind
) -> None:
    model, arch = str(place / "steep.pt"), f"{place}/nets.py:steep"
    report = place / "report.json"
    more = ("--data", str(place / "data.npz"), "--no-progress")
    asked = (*command, model, "--arch", arch, *more)
    done = cli(*asked, "--report", f"json={report}")
    assert done.code in (0, 1), done.err
    record = json.loads(report.read_text())
    audits = list(_audits(record[kind]))
    words = [shlex.split(text) for text in _commands(record) if model in text]

    assert audits
    assert {audit["target"]["arch"] for audit in audits} == {arch}
    assert all(word[word.index("--arch") + 1] == arch for word in words)
    if kind == "retraining":
        assert words[0][:2] == ["vgaudit", "convert"]
        proposed = cli(*words[0][1:], "--no-progress")
        assert proposed.code == 0, proposed.err


def _audits(record):
    """Yields every measurement in a record, however deep."""
    if isinstance(record, dict):
        if "target" in record and "flow" in record:
            yield record
        for value in record.values():
            yield from _audits(value)
    elif isinstance(record, list):
        for value in record:
            yield from _audits(value)


def _commands(record):
    """Yields every command in a record, however deep."""
    if isinstance(record, dict):
        for name, value in record.items():
            if name == "command" and isinstance(value, str):
                yield value
            yield from _commands(value)
    elif isinstance(record, list):
        for value in record:
            yield from _commands(value)
