"""What ``vgaudit retrain`` names as the way out can be typed, and leads out."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.courses import furnished, options
from vgaudit.errors import BadConfig
from vgaudit.training.options import check

NETS = """
import torch
from torch import nn


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.r, self.f = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.f(self.r(x.view(-1, 2, 3))[0][:, -1])


def reader():
    torch.manual_seed(0)
    return Reader()


def line():
    return nn.Linear(6, 3)


def lines():
    return nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with model factories and labelled samples."""
    return furnished(tmp_path, NETS)


def named_command(hint: str, **values: str) -> list[str]:
    """Returns the command that a hint puts between backticks, filled in."""
    found = re.search(r"`vgaudit ([^`]+)`", hint)
    assert found is not None, hint
    return [values.get(word, word) for word in found.group(1).split()]


def test_fused_activations_are_opened_by_the_command_that_is_named(
    cli, here, place
) -> None:
    model, data = f"{place}/nets.py:reader", str(place / "data.npz")
    asked = ["--with", "adact", "--data", data, "--epochs", "1", "--no-progress"]
    refused = cli("retrain", model, *asked)
    out = str(place / "open.safetensors")
    opening = named_command(
        refused.err, MODEL=model, DATA=data, **{"OUT.safetensors": out}
    )
    opened = cli(*opening)
    done = cli("retrain", out, "--arch", model, *asked)

    assert refused.code == 3
    assert "inside the fused lstm" in refused.err
    assert opened.code == 0, opened.err
    assert done.code == 0, done.err


def test_a_model_without_activations_has_methods_of_a_training(
    cli, here, place
) -> None:
    asked = ["--data", str(place / "data.npz"), "--epochs", "1", "--no-progress"]
    model = f"{place}/nets.py:lines"
    refused = cli("retrain", model, "--with", "adact", *asked)

    assert refused.code == 3
    methods = re.findall(r"\b(?:sdagd|adam)\b", refused.err.split("help: ")[1])
    assert methods == ["sdagd", "adam"]
    for method in methods:
        assert cli("retrain", model, "--with", method, *asked).code == 0


def test_where_no_cut_is_possible_the_trunk_is_shown_by_what_is_named(
    cli, here, place
) -> None:
    model, data = f"{place}/nets.py:line", str(place / "data.npz")
    refused = cli("retrain", model, "--with", "rai", "--data", data, "--no-progress")
    shown = cli(*named_command(refused.err, MODEL=model))

    assert refused.code == 3
    assert "the model has 1 weight layer on its longest path" in refused.err
    assert shown.code == 0, shown.err
    assert "1 weight layer on the longest path" in shown.out


@pytest.mark.parametrize(
    "control", ["adam", "adamw", "sgd", "centred-adam", "sdagd", "readout"]
)
def test_a_control_names_every_setting_that_it_takes(control: str) -> None:
    """Whatever is named is taken: with its default, or refused for its value alone."""
    asked = options("adam")
    with pytest.raises(BadConfig) as caught:
        check(replace(asked, controls=(f"{control}:foo=1",)))
    known = caught.value.hint.split("known: ")[1].split(", ")

    assert caught.value.message == f"control {control} has no setting 'foo'"
    assert known[0] == "lr"
    check(replace(asked, controls=(f"{control}:lr=0.1",)))
    for name in known:
        with pytest.raises(BadConfig, match=f"(lr|setting {name}) .*'?nonsense"):
            check(replace(asked, controls=(f"{control}:{name}=nonsense",)))


def test_the_nearest_setting_of_a_control_is_guessed() -> None:
    for given, meant in (("lrr=1", "lr"), ("beta=0.9", "beta"), ("epss=1", "eps")):
        with pytest.raises(BadConfig) as caught:
            check(options("adam", controls=(f"adam:{given}",)))
        assert caught.value.hint.startswith(f"did you mean {meant}")
