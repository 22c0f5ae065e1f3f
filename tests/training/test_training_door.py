"""Data that does not fit is refused before the training, by its name and the layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.courses import furnished, samples

NETS = """
import torch
from torch import nn


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.n = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, x):
        return self.n(x)


def inner():
    torch.manual_seed(0)
    return Inner()
"""
WRONG = "in n.0 (Linear) on input [{rows}, 5] float32; it takes 6 input features"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model factory, samples, some of five features, and bad labels."""
    place = furnished(tmp_path, NETS)
    x, y = (tensor.numpy() for tensor in samples())
    np.savez(place / "narrow.npz", x=x[:, :5], y=y)
    labels = y.copy()
    labels[100] = 3
    np.savez(place / "labels.npz", x=x, y=labels)
    return place


def asked(place: Path, data: str, *more: str) -> list[str]:
    return [
        *("retrain", f"{place}/nets.py:inner", "--with", "adam", "--epochs", "1"),
        *("--data", str(place / data), "--no-progress", "--batch-size", "16", *more),
    ]


def test_a_wrong_shape_is_told_with_file_module_and_what_it_takes(
    cli, here, place
) -> None:
    done = cli(*asked(place, "narrow.npz"))
    told = " ".join(done.err.split())

    assert done.code == 3
    assert WRONG.format(rows=16) in told
    assert f"error: {place / 'narrow.npz'}: the model fails on its data: " in told


def test_validation_data_of_a_wrong_shape_is_named(cli, here, place) -> None:
    wrong = place / "narrow.npz"
    done = cli(*asked(place, "data.npz", "--valid-data", str(wrong)))
    told = " ".join(done.err.split())

    assert done.code == 3
    assert WRONG.format(rows=16) in told
    assert f"error: the validation data {wrong}: the model fails" in told


def test_a_class_without_an_output_is_told_of_the_validation_data(
    cli, here, place
) -> None:
    """The label is in the last batch but one, long after the first look."""
    wrong = place / "labels.npz"
    done = cli(*asked(place, "data.npz", "--valid-data", str(wrong)))
    told = " ".join(done.err.split())

    assert done.code == 3
    assert f"error: the validation data {wrong}: label 3 but 3 outputs" in told
