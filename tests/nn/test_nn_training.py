"""What the documents say of training, on MNIST: minutes, real data, one seed each.

    VGAUDIT_TEST_DATA=… python -m pytest tests/nn/test_nn_training.py -m "slow and data"

Sigmoid networks of width 64 in PyTorch's initialisation, 30,000 images, batch 128,
Adam 1e-3, three epochs. Untreated, 10 layers stay near chance.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vgaudit.nn import (
    Denominator,
    PiecewiseLinear,
    auto_rotate,
    calibrate_,
    center_,
    fold_,
)

pytestmark = [pytest.mark.slow, pytest.mark.data]

WIDTH, BATCH = 64, 128


@pytest.fixture(scope="module")
def mnist() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    folder = Path(os.environ.get("VGAUDIT_TEST_DATA", "absent")) / "MNIST" / "raw"
    if not folder.exists():
        pytest.skip("set VGAUDIT_TEST_DATA to a folder with MNIST")

    def images(name: str) -> Tensor:
        raw = np.fromfile(folder / f"{name}-images-idx3-ubyte", np.uint8)
        return torch.from_numpy(raw[16:]).view(-1, 784).float() / 255

    def labels(name: str) -> Tensor:
        raw = np.fromfile(folder / f"{name}-labels-idx1-ubyte", np.uint8)
        return torch.from_numpy(raw[8:]).long()

    return (
        images("train")[:30000],
        labels("train")[:30000],
        images("t10k"),
        labels("t10k"),
    )


@pytest.fixture(autouse=True)
def _float32(_seeded_float64) -> None:
    torch.set_default_dtype(torch.float32)


def network(depth: int, activation=nn.Sigmoid) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in [784, *[WIDTH] * (depth - 1)]:
        layers += [nn.Linear(size, WIDTH), activation()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


def treated(model: nn.Sequential, x: Tensor, *, fold: bool = True) -> nn.Sequential:
    """Rotates every layer but the last, in order: centred, calibrated, folded."""
    for layer in list(model)[:-1]:
        if isinstance(layer, nn.Linear):
            rotated = auto_rotate(layer, inputs=(0, 1))
            calibrate_(center_(rotated, x), x, target=4.0)
            if fold:
                fold_(rotated)
        x = layer(x).detach()
    return model


def accuracy_after_training(model: nn.Module, data, epochs: int = 3) -> float:
    x, y, test_x, test_y = data
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        hits = model(test_x).argmax(1) == test_y
    return 100 * hits.double().mean().item()


@pytest.mark.parametrize(("depth", "least"), [(10, 91.0), (20, 89.0)])
def test_folded_ar_trains_deep_sigmoid_networks(mnist, depth, least) -> None:
    model = treated(network(depth), mnist[0][:2048])

    assert accuracy_after_training(model, mnist) >= least


def test_unfolded_ar_collapses_at_20_layers(mnist) -> None:
    model = treated(network(20), mnist[0][:2048], fold=False)

    assert accuracy_after_training(model, mnist) < 30


def test_untreated_and_published_ar_stay_behind(mnist) -> None:
    published = network(10)
    for layer in list(published)[:-1]:
        if isinstance(layer, nn.Linear):
            how = Denominator("xq-min")
            auto_rotate(layer, limit=5.0, denominator=how, inputs=(0, 1))

    assert accuracy_after_training(network(10), mnist) < 40
    assert accuracy_after_training(published, mnist) < 80


@pytest.mark.parametrize("start", ["tanh", "leaky", "relu"])
def test_piecewise_linear_trains_where_sigmoid_does_not(mnist, start) -> None:
    model = network(10, lambda: PiecewiseLinear(WIDTH, start=start))

    assert accuracy_after_training(model, mnist) >= 88


def test_a_start_that_preserves_sigmoid_inherits_its_gradient(mnist) -> None:
    model = network(
        10, lambda: PiecewiseLinear(WIDTH, start="preserve", base=nn.Sigmoid())
    )

    assert accuracy_after_training(model, mnist) < 30
