"""Accuracy and loss beside gradient health, recomputed with PyTorch alone."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

NETS = """\
import torch
from torch import nn

def deep():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(4, 8), nn.Sigmoid(), nn.Dropout(0.5), nn.Linear(8, 8), nn.Sigmoid(),
        nn.Linear(8, 3),
    )

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.first, self.last = nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))

class Line(Wide):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(16, 2)

class Moody(Wide):
    def forward(self, x):
        if not self.training:
            raise ValueError("no evaluation today")
        return super().forward(x)

class Half(Wide):
    def __init__(self):
        super().__init__()
        self.bfloat16()

class Pair(Wide):
    def forward(self, x):
        right = super().forward(x)
        return {"wrong": -right, "right": right}
"""
CODE = ("--allow-code", "--no-progress")
WHOLE = ("--batches", "3", "--batch-size", "16")
"""All 48 samples of ``data.npz``, whatever their order."""


def cells(text: str, label: str) -> str:
    """Returns the rest of the one line that starts with a label."""
    (line,) = [x for x in text.splitlines() if x.startswith(label)]
    return " ".join(line.removeprefix(label).split())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nets, 48 labelled samples, others to validate on, and targets."""
    draw = torch.Generator().manual_seed(0)
    for name, size in (("data", 48), ("held", 40)):
        x = torch.randn(size, 4, generator=draw)
        y = (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()
        np.savez(tmp_path / f"{name}.npz", x=x.numpy(), y=y.numpy())
    np.savez(tmp_path / "real.npz", x=x.numpy(), y=torch.stack((x[:, 0], x[:, 1]), 1))
    (tmp_path / "nets.py").write_text(NETS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def samples(place: Path, name: str) -> tuple[Tensor, Tensor]:
    with np.load(place / f"{name}.npz") as file:
        return torch.from_numpy(file["x"]), torch.from_numpy(file["y"])


def net(place: Path, name: str) -> nn.Module:
    made: nn.Module = runpy.run_path(str(place / "nets.py"))[name]()
    return made.eval()


@torch.no_grad()
def judged(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Returns accuracy and mean cross-entropy, by PyTorch alone."""
    output = model(x).float()
    right = (output.argmax(1) == y).double().mean()
    return float(right), float(F.cross_entropy(output, y))


def compared(cli: Any, *words: str, code: int = 0) -> dict[str, Any]:
    done = cli("compare", *words, "--format", "json")
    assert done.code == code, done.err
    found: dict[str, Any] = json.loads(done.out)["comparison"]
    return found


@pytest.fixture
def training(cli: Any, here: None, place: Path) -> Path:
    """The report of a training that was validated on ``held.npz``."""
    done = cli(
        *("retrain", "nets.py:deep", "--with", "adam", "--lr", "0.05"),
        *("--epochs", "4", "--data", "data.npz", "--valid-data", "held.npz"),
        *("--report", "json=a.json", "-o", "out.safetensors", *CODE),
    )
    assert done.code == 0, done.err
    return place


def test_a_training_has_the_accuracy_of_its_models(cli, training) -> None:
    x, y = samples(training, "held")
    model = net(training, "deep")
    old = judged(model, x, y)
    model.load_state_dict(load_file(training / "out.safetensors"))
    new = judged(model, x, y)
    found = compared(cli, "a.json#before", "a.json")
    before, after = (found[when]["score"] for when in ("before", "after"))

    assert new[0] > old[0] + 0.1
    for score, wanted in ((before, old), (after, new)):
        assert score["metric"] == "accuracy"
        assert score["value"] == pytest.approx(wanted[0], abs=1e-9)
        assert score["loss"] == pytest.approx(wanted[1], rel=1e-4)
        assert score["samples"] == 40
    assert (before["epoch"], found["before"]["side"]["name"]) == (0, "a.json#before")
    assert after["epoch"] > 0
    half = 1.96 * math.sqrt(sum(p * (1 - p) for p, _ in (old, new)) / 40)
    assert found["gain"]["metric"] == pytest.approx(new[0] - old[0], abs=1e-9)
    assert found["gain"]["uncertainty"] == pytest.approx(half, abs=1e-9)
    assert found["notes"] == []


def test_text_shows_the_scores_before_gradient_health(cli, training) -> None:
    text = cli("compare", "a.json", "a.json").out
    record = compared(cli, "a.json#before", "a.json#after")
    old, new = (record[when]["score"]["value"] for when in ("before", "after"))
    half = record["gain"]["uncertainty"]

    wanted = (
        f"{100 * old:.1f} % {100 * new:.1f} % {100 * (new - old):+.1f} points "
        f"± {100 * half:.1f}"
    )
    assert cells(text, "accuracy") == wanted
    assert text.index("accuracy") < text.index("gradient health")
    assert text.startswith("before  a.json#before\n")
    assert "nets.py:deep: Sequential, 3 weight layers, 139 parameters" in text
    assert "40 samples of held.npz" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_the_schema_knows_the_scores(cli, training) -> None:
    schema = json.loads(cli("schema", "compare").out)
    record = json.loads(
        cli("compare", "a.json#before", "a.json", "--format", "json").out
    )
    checked = Draft202012Validator(schema)
    checked.check_schema(schema)

    assert record["comparison"]["after"]["score"]["metric"] == "accuracy"
    checked.validate(record)


def test_a_plain_scan_has_no_accuracy_and_no_dash(cli, training) -> None:
    scan = ("scan", "nets.py:deep", "--input", "8x4", *CODE)
    assert cli(*scan, "--report", "json=s.json").code == 0
    text = cli("compare", "s.json", "a.json").out

    assert "accuracy" not in text
    assert not [x for x in text.splitlines() if x.startswith("loss")]
    assert "note: measured on different data: " in text


def test_two_scans_with_labels_show_the_loss_that_they_have(cli, here, place) -> None:
    for name in ("deep", "Wide"):
        scan = ("scan", f"nets.py:{name}", "--data", "data.npz", *WHOLE, *CODE)
        assert cli(*scan, "--report", f"json={name}.json").code == 0
    found = compared(cli, "deep.json", "Wide.json")
    flows = [json.loads((place / f"{n}.json").read_text()) for n in ("deep", "Wide")]
    losses = [flow["audit"]["flow"]["loss"]["value"] for flow in flows]

    assert [found[when]["score"]["loss"] for when in ("before", "after")] == losses
    assert found["gain"]["loss"] == pytest.approx(losses[1] - losses[0])
    assert found["gain"]["metric"] is None


@pytest.mark.parametrize("name", ["Wide", "Half"])
def test_models_are_scored_on_the_samples_of_the_scan(cli, here, place, name) -> None:
    words = ("nets.py:deep", f"nets.py:{name}", "--data", "data.npz", *WHOLE, *CODE)
    found = compared(cli, *words)
    x, y = samples(place, "data")

    model = net(place, name)
    own = next(model.parameters()).dtype
    for when, wanted in (
        ("before", judged(net(place, "deep"), x, y)),
        ("after", judged(model, x.to(own), y)),
    ):
        score = found[when]["score"]
        assert score["value"] == pytest.approx(wanted[0], abs=1e-9)
        assert score["loss"] == pytest.approx(wanted[1], rel=1e-2)
        assert score["samples"] == 48
    (note,) = found["notes"]
    assert note == (
        "the architectures differ: Sequential (3 weight layers, 139 parameters) "
        f"before, {name} (2 weight layers, 131 parameters) after"
    )


def test_a_regression_is_scored_by_r_squared(cli, here, place) -> None:
    x, y = samples(place, "real")
    words = ("--data", "real.npz", "--loss", "mse", "--batches", "5")
    found = compared(
        cli, "nets.py:Line", "nets.py:Line", *words, "--batch-size", "8", *CODE
    )
    with torch.no_grad():
        given = net(place, "Line")(x)
    wanted = 1 - (y - given).square().sum() / (y - y.mean(0)).square().sum()

    assert found["before"]["score"]["metric"] == "R²"
    assert found["after"]["score"]["value"] == pytest.approx(float(wanted), rel=1e-4)
    assert found["gain"] == {"metric": 0.0, "uncertainty": None, "loss": 0.0}


def test_the_chosen_output_is_scored(cli, here, place) -> None:
    words = ("nets.py:Pair", "nets.py:Pair", "--output", "right")
    found = compared(cli, *words, "--data", "data.npz", *WHOLE, *CODE)
    wanted, _ = judged(net(place, "Wide"), *samples(place, "data"))

    assert found["after"]["score"]["value"] == pytest.approx(wanted, abs=1e-9)


def test_scoring_leaves_the_scan_as_it_is(cli, here, place) -> None:
    words = ("--data", "data.npz", *WHOLE, *CODE)
    assert cli("scan", "nets.py:deep", *words, "--report", "json=s.json").code == 0
    found = compared(cli, "s.json", "nets.py:deep", *words)
    before, after = found["before"], found["after"]

    for record in (before, after):
        del record["score"], record["side"]["name"]
    assert before == after
    assert found["notes"] == []


def test_a_model_that_cannot_be_scored_is_compared_all_the_same(
    cli, here, place
) -> None:
    words = ("nets.py:Wide", "nets.py:Moody", "--data", "data.npz", *WHOLE, *CODE)
    found = compared(cli, *words)

    assert found["after"]["attenuation"] == pytest.approx(
        found["before"]["attenuation"]
    )
    # Of the scans, which ran in train mode, the loss is known all the same.
    assert found["after"]["score"]["on"] == "those of the scan, in train mode"
    assert "no evaluation today" in found["notes"][-1]
    assert found["notes"][-1].startswith("the model after could not be scored: ")


def test_without_labels_nothing_is_scored(cli, here, place) -> None:
    found = compared(cli, "nets.py:deep", "nets.py:Wide", "--input", "8x4", *CODE)

    assert found["after"]["score"] is None
    assert found["gain"] is None
    assert found["before"]["side"]["synthetic"] is True
